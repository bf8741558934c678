// The list of episodes, its filters, and the one that is open.

const SHOWN = 60; // rows drawn at a time
const filters = { kind: "", verdict: "", from: "", to: "", low: "", high: "", find: "", sort: "latest" };

const SORTS = {
  latest: ["latest step first", (a, b) => b.step - a.step || a.group - b.group || a.index - b.index],
  first: ["first step first", (a, b) => a.step - b.step || a.group - b.group || a.index - b.index],
  spread: ["largest change of reward in its group", (a, b) => b.spread - a.spread || b.step - a.step || a.group - b.group || b.reward - a.reward],
  rescored: ["seen again after its update", (a, b) => b.rescored - a.rescored || b.step - a.step || a.group - b.group || a.index - b.index],
  change: ["largest change from first to last attempt", (a, b) => Math.abs(b.change) - Math.abs(a.change) || b.step - a.step],
  high: ["highest reward", (a, b) => (b.reward ?? -1) - (a.reward ?? -1) || b.step - a.step],
  low: ["lowest reward", (a, b) => (a.reward ?? 9) - (b.reward ?? 9) || b.step - a.step],
  long: ["longest", (a, b) => b.length - a.length],
};

function passes(row, f) {
  const below = (bound, value) => bound !== "" && !(value >= Number(bound));
  const above = (bound, value) => bound !== "" && !(value <= Number(bound));
  return !(f.kind && row.kind !== f.kind) && !(f.verdict && verdictWord(row) !== f.verdict) &&
    !below(f.from, row.step) && !above(f.to, row.step) && !below(f.low, row.reward ?? NaN) && !above(f.high, row.reward ?? NaN) &&
    !(f.find && !`${row.id} ${row.asked} ${row.said}`.toLowerCase().includes(f.find.toLowerCase()));
}

function episodesView(source, opened, go) {
  const list = el("ol", { class: "list", "aria-label": "episodes" });
  const count = el("p", { class: "help count-line", role: "status" });
  const note = el("p", { class: "help" });
  const detail = el("div", { class: "detail" });
  const bar = el("form", { class: "filters", "aria-label": "filter episodes", onsubmit: (event) => event.preventDefault() });
  const page = el("div", { class: "browser" }, el("div", { class: "side" }, bar, note, count, list), detail);
  const state = { rows: [], found: [], shown: SHOWN, open: null, episode: null };

  const apply = () => {
    state.found = state.rows.filter((row) => passes(row, filters)).sort(SORTS[filters.sort][1]);
    state.shown = SHOWN;
    fill();
  };
  const fill = () => {
    count.textContent = `${plural(state.found.length, "episode")} of ${state.rows.length}`;
    list.replaceChildren(...state.found.slice(0, state.shown).map((row) => listRow(row, row.id === state.open)));
    if (state.found.length > state.shown)
      list.append(el("li", {}, el("button", { type: "button", class: "more", text: "Show more", onclick: () => { state.shown += 4 * SHOWN; fill(); } })));
  };
  page.open = async (id) => {
    state.open = id;
    page.classList.toggle("opened", Boolean(id));
    for (const link of list.querySelectorAll("a")) link.toggleAttribute("aria-current", link.dataset.id === id);
    if (!id) return detail.replaceChildren(el("p", { class: "empty", text: "Choose an episode: click it, or press j." }));
    try {
      const group = await source.group(id);
      if (state.open !== id) return;
      state.episode = episodeView(group, id, go);
      detail.replaceChildren(el("button", { type: "button", class: "plain back", text: "‹ all episodes", onclick: () => go("") }), state.episode);
      detail.scrollTop = 0;
    } catch (error) {
      detail.replaceChildren(el("p", { class: "empty", text: error.message }));
    }
  };
  page.move = (by) => {
    const at = state.found.findIndex((row) => row.id === state.open);
    const next = state.found[Math.min(state.found.length - 1, Math.max(0, at + by))];
    if (!next) return;
    if (at + by >= state.shown) { state.shown += SHOWN; fill(); }
    go(next.id);
    list.querySelector(`a[data-id="${next.id}"]`)?.scrollIntoView({ block: "nearest" });
  };
  page.nextMode = () => state.episode && state.episode.nextMode();
  page.focusFilter = () => bar.querySelector("input[type=search]").focus();
  page.refresh = async () => { state.rows = (await source.episodes()).rows; apply(); };

  count.textContent = "Reading episodes…";
  source.episodes().then((answer) => {
    state.rows = answer.rows;
    note.textContent = answer.note;
    filterBar(bar, [...new Set(answer.rows.map((row) => row.kind))].sort(), apply);
    apply();
  }).catch((error) => { count.textContent = error.message; });
  page.open(opened);
  return page;
}

function listRow(row, current) {
  const share = el("span", { class: "gauge", "aria-hidden": "true" }, el("span"));
  share.firstChild.style.width = `${100 * Math.max(0, Math.min(1, row.reward || 0))}%`;
  return el("li", {}, el("a", { href: address({ view: "episodes", episode: row.id }), "data-id": row.id, "aria-current": current ? "true" : null },
    el("span", { class: `mark ${verdictWord(row)}`, text: symbol(row), title: verdictWord(row) }),
    el("span", { class: "line" }, el("span", { class: "asked", text: row.asked || row.kind }), el("span", { class: "said", text: row.said || "(nothing said)" })),
    el("span", { class: "meta" }, el("span", { text: `step ${row.step}` }), share, el("span", { text: `${number(row.reward)}` })),
  ));
}

function filterBar(bar, kinds, apply) {
  let waiting = 0;
  const set = (name) => (event) => {
    filters[name] = event.target.value;
    clearTimeout(waiting);
    waiting = setTimeout(apply, event.type === "input" ? 120 : 0);
  };
  const pick = (label, name, options) => {
    const box = el("select", { name, onchange: set(name) }, options.map(([value, words]) => el("option", { value, text: words })));
    box.value = filters[name];
    return el("label", {}, el("span", { text: label }), box);
  };
  const range = (label, low, high, step) => {
    const field = (name, hint) => {
      const box = el("input", { type: "number", name, step, placeholder: hint, "aria-label": `${label} ${hint}`, oninput: set(name) });
      box.value = filters[name];
      return box;
    };
    return el("label", { class: "range" }, el("span", { text: label }), el("span", { class: "pair" }, field(low, "from"), field(high, "to")));
  };
  const find = el("input", { type: "search", name: "find", placeholder: "words in it", oninput: set("find") });
  find.value = filters.find;
  if (!kinds.includes(filters.kind)) filters.kind = "";
  bar.replaceChildren(
    el("label", {}, el("span", { text: "Find" }), find),
    pick("Kind", "kind", [["", "all"], ...kinds.map((kind) => [kind, kind])]),
    pick("Verdict", "verdict", [["", "all"], ["pass", "✓ pass"], ["fail", "✗ fail"], ["error", "! error"]]),
    range("Step", "from", "to", "1"), range("Reward", "low", "high", "any"),
    pick("Sort", "sort", Object.entries(SORTS).map(([name, [words]]) => [name, words])),
  );
}
