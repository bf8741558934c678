// Tasks that a model wrote: who wrote each, from what, who solved it, when.

const writtenFilters = { kind: "", state: "", find: "", sort: "latest" };

const share = (row) => (row.tried ? row.solved / row.tried : row.probed);

const STATES = {
  "": ["all", () => true],
  untried: ["not tried yet", (row) => !row.tried],
  never: ["never solved", (row) => row.tried && !row.solved],
  sometimes: ["solved sometimes", (row) => row.solved && row.solved < row.tried],
  always: ["always solved", (row) => row.tried && row.solved === row.tried],
};

const WRITTEN_SORTS = {
  latest: ["latest first", (a, b) => b.step - a.step],
  first: ["first first", (a, b) => a.step - b.step],
  hardest: ["seldom solved first", (a, b) => (share(a) ?? 2) - (share(b) ?? 2) || b.step - a.step],
  difficult: ["highest difficulty first", (a, b) => b.difficulty - a.difficulty || b.step - a.step],
  tried: ["most tried first", (a, b) => b.tried - a.tried || b.step - a.step],
};

function question(row) {
  return row.prompt.length ? row.prompt[row.prompt.length - 1].content : "";
}

function writtenView(source, opened, go) {
  const list = el("ol", { class: "list", "aria-label": "written tasks" });
  const count = el("p", { class: "help count-line", role: "status", text: "Reading written tasks…" });
  const note = el("p", { class: "help" });
  const detail = el("div", { class: "detail" });
  const bar = el("form", { class: "filters", "aria-label": "filter written tasks", onsubmit: (event) => event.preventDefault() });
  const page = el("div", { class: "browser" }, el("div", { class: "side" }, bar, note, count, list), detail);
  const state = { rows: [], found: [], shown: SHOWN, open: opened };

  const apply = () => {
    const f = writtenFilters;
    const words = f.find.toLowerCase();
    state.found = state.rows.filter((row) => (!f.kind || row.kind === f.kind) && STATES[f.state][1](row) &&
      (!words || `${question(row)} ${row.answer} ${row.writer}`.toLowerCase().includes(words)));
    state.found.sort(WRITTEN_SORTS[f.sort][1]);
    state.shown = SHOWN;
    fill();
  };
  const fill = () => {
    count.textContent = `${plural(state.found.length, "task")} of ${state.rows.length}`;
    list.replaceChildren(...state.found.slice(0, state.shown).map((row) => writtenRow(row, row.key === state.open)));
    if (state.found.length > state.shown)
      list.append(el("li", {}, el("button", { type: "button", class: "more", text: "Show more", onclick: () => { state.shown += 4 * SHOWN; fill(); } })));
  };
  page.open = (key) => {
    state.open = key;
    page.classList.toggle("opened", Boolean(key));
    for (const link of list.querySelectorAll("a")) link.toggleAttribute("aria-current", link.dataset.id === key);
    const row = state.rows.find((other) => other.key === key);
    if (row) detail.replaceChildren(el("button", { type: "button", class: "plain back", text: "‹ all tasks", onclick: () => go("") }), writtenTask(row, state.rows));
    else detail.replaceChildren(el("p", { class: "empty", text: key && state.rows.length ? "This task is not listed here." : "Choose a task: click it, or press j." }));
    detail.scrollTop = 0;
  };
  page.move = (by) => {
    const at = state.found.findIndex((row) => row.key === state.open);
    const next = state.found[Math.min(state.found.length - 1, Math.max(0, at + by))];
    if (!next) return;
    if (at + by >= state.shown) { state.shown += SHOWN; fill(); }
    go(next.key);
    list.querySelector(`a[data-id="${CSS.escape(next.key)}"]`)?.scrollIntoView({ block: "nearest" });
  };
  page.focusFilter = () => bar.querySelector("input[type=search]").focus();
  page.refresh = async () => {
    const answer = await source.written();
    state.rows = answer.rows;
    note.textContent = answer.total > answer.rows.length ? `The newest ${answer.rows.length} of ${answer.total} are listed.` : "";
    writtenBar(bar, [...new Set(answer.rows.map((row) => row.kind))].sort(), apply);
    apply();
    page.open(state.open);
  };
  page.refresh().catch((error) => { count.textContent = error.message; });
  return page;
}

function rate(row) {
  if (row.tried) return `solved ${row.solved} of ${row.tried}`;
  return row.probed === null || row.probed === undefined ? "not tried" : `tried out: ${percent(row.probed, 0)}`;
}

function writtenRow(row, current) {
  const bar = el("span", { class: "gauge", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.width = `${100 * Math.max(0, Math.min(1, share(row) || 0))}%`;
  return el("li", {}, el("a", { href: address({ view: "written", task: row.key }), "data-id": row.key, "aria-current": current ? "true" : null },
    el("span", { class: "mark", text: row.left === null ? "•" : "◦", title: row.left === null ? "kept" : "no longer kept" }),
    el("span", { class: "line" }, el("span", { class: "asked", text: question(row) }), el("span", { class: "said", text: `${row.kind} · ${rate(row)}` })),
    el("span", { class: "meta" }, el("span", { text: `step ${row.step}` }), bar),
  ));
}

function writtenTask(row, rows) {
  const parent = rows.find((other) => other.key === row.parent);
  const origin = el("p", {}, "Written by ", el("strong", { text: row.writer }), ` at step ${row.step}`,
    row.episode ? [" in ", el("a", { href: address({ view: "episodes", episode: row.episode, task: "" }), text: `episode ${row.episode}` })] : null,
    parent ? [", from ", el("a", { href: address({ task: parent.key }), text: "another written task" })] : null,
    row.left === null ? "." : `; it left the buffer at step ${row.left}.`);
  const cells = (attempt) => [
    el("td", { text: attempt.step }), el("td", { text: attempt.by }),
    el("td", { class: attempt.correct ? "pass" : "fail", text: attempt.correct ? "✓ pass" : "✗ fail" }),
    el("td", {}, el("a", { href: address({ view: "episodes", episode: attempt.id, task: "" }), text: attempt.id })),
  ];
  const head = ["Step", "Solver and version", "Verdict", "Episode"].map((name) => el("th", { scope: "col", text: name }));
  return el("article", { class: "episode" },
    el("div", { class: "episode-head" }, el("h2", { text: "Written task" }),
      el("p", { class: "help", text: `${row.kind} · difficulty ${number(row.difficulty)} · ${row.key}` })),
    origin,
    el("div", { class: "turns" }, row.prompt.map((message) => el("div", { class: "turn" },
      el("div", { class: "who" }, el("strong", { text: message.role })), el("p", { class: "words", text: message.content })))),
    row.answer === null ? null : el("p", { class: "scores", text: `expected answer: ${row.answer}` }),
    row.asked ? el("details", {}, el("summary", { text: "What its writer was asked" }), el("p", { class: "words", text: row.asked })) : null,
    el("h3", { text: `Attempts: ${rate(row)}` }),
    row.tried && row.probed !== null && row.probed !== undefined
      ? el("p", { class: "help", text: `When it was written, ${percent(row.probed, 0)} of the attempts at it were right.` }) : null,
    row.tried ? el("div", { class: "scroll" }, el("table", { class: "arms" }, el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, row.attempts.map((attempt) => el("tr", {}, cells(attempt)))))) : null);
}

function writtenBar(bar, kinds, apply) {
  const set = (name) => (event) => { writtenFilters[name] = event.target.value; apply(); };
  const pick = (label, name, options) => {
    const box = el("select", { name, onchange: set(name) }, options.map(([value, words]) => el("option", { value, text: words })));
    box.value = writtenFilters[name];
    return el("label", {}, el("span", { text: label }), box);
  };
  const find = el("input", { type: "search", name: "find", placeholder: "words in it", oninput: set("find") });
  find.value = writtenFilters.find;
  if (!kinds.includes(writtenFilters.kind)) writtenFilters.kind = "";
  const typing = bar.contains(document.activeElement);
  if (typing) return;
  bar.replaceChildren(
    el("label", {}, el("span", { text: "Find" }), find),
    pick("Kind", "kind", [["", "all"], ...kinds.map((kind) => [kind, kind])]),
    pick("Solved", "state", Object.entries(STATES).map(([name, [words]]) => [name, words])),
    pick("Sort", "sort", Object.entries(WRITTEN_SORTS).map(([name, [words]]) => [name, words])),
  );
}
