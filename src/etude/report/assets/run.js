// The curves, settings and findings of one run.

let axisChosen = "step";

function runView(content, view, source) {
  return view === "settings" ? settingsView(content) : curvesView(content, source);
}

function curvesView(content, source) {
  const page = el("div", { class: "curves" });
  let charts = [];
  const fill = (fresh) => {
    charts.forEach(forget);
    charts = [];
    const place = (spec) => {
      if (spec.heat) return heatmap(spec);
      const made = chart(spec);
      charts.push(made);
      return made.box;
    };
    page.replaceChildren(...[headline(fresh), branches(fresh), lead(fresh, place)].filter(Boolean), ...curves(fresh, axisChosen).map((group, i) =>
      el("section", {}, el("div", { class: "sectionhead" }, el("h2", { text: group.title }),
        i === 0 && axisChoice(fresh, () => fill(fresh))), i === 0 && smoothingNote(fresh),
        el("div", { class: "grid" }, group.specs.map(place)))), ...[perKind(fresh), refusals(fresh)].filter(Boolean));
  };
  fill(content);
  page.refresh = (fresh) => {
    const specs = curves(fresh, axisChosen).flatMap((group) => group.specs);
    const held = heldOut(fresh, axisChosen);
    if (held) specs.unshift(held);
    const lines = specs.filter((spec) => !spec.heat);
    const same = lines.length === specs.length && lines.length === charts.length &&
      lines.every((spec, i) => spec.id === charts[i].spec.id && spec.series.length === charts[i].spec.series.length);
    if (!same) return fill(fresh);
    lines.forEach((spec, i) => charts[i].update(spec));
    page.firstChild.replaceWith(headline(fresh));
    page.querySelector(".health").replaceWith(health(fresh));
  };
  page.leave = () => charts.forEach(forget);
  return page;
}

function axisChoice(content, again) {
  const known = AXES.filter(([name]) => name === "step" || some(content.metrics[name]));
  if (known.length < 2) return null;
  return choice("Horizontal axis", known, axisChosen, (name) => { axisChosen = name; again(); });
}

function smoothingNote(content) {
  const width = smoothing((content.metrics.step || []).length);
  const words = `Thin lines are single steps, bold ones the mean of the last ${width}. Dashed verticals ▲ are health findings.`;
  return width > 1 ? el("p", { class: "help", text: words }) : null;
}

function tile(label, value, note) {
  return el("div", { class: "tile" }, el("span", { class: "label", text: label }), el("strong", { text: value }),
    note && el("span", { class: "note", text: note }));
}

function lastOf(values) {
  return some(values) ? values.filter((v) => v !== null).at(-1) : null;
}

function headline(content) {
  const m = content.metrics;
  const shown = content.evals.shown;
  const tiles = el("div", { class: "tiles" });
  if (shown.length) {
    const name = shown[shown.length - 1].name;
    const mine = shown.filter((row) => row.name === name);
    const kept = mine.filter((row) => /^(last|best on )/.test(row.rule));
    const [first, last] = [mine[0], kept[kept.length - 1] || mine[mine.length - 1]];
    const whole = `${last.problems} problems × ${last.samples}, seed ${last.seed}, ${text(last.sampling)}, checkpoint: ${last.rule}`;
    tiles.append(tile("Held-out accuracy", mine.length > 1 ? `${percent(first.mean)} → ${percent(last.mean)}` : percent(last.mean),
      `95% interval ${percent(last.low)} – ${percent(last.high)}; ${whole}`));
    if (last.pass)
      for (const [k, value] of Object.entries(last.pass).filter(([k]) => Number(k) > 1).slice(-1))
        tiles.append(tile(`pass@${k}`, percent(value[0]), `95% interval ${percent(value[1])} – ${percent(value[2])}`));
  }
  const ended = m.step ? m.step.at(-1) : null;
  tiles.append(tile("Reward", percent(lastOf(m.reward)), "last step, training tasks"));
  tiles.append(tile("Steps", number(ended), lastOf(m.seconds) !== null ? `in ${duration(lastOf(m.seconds))}` : null));
  if (some(m["tokens/generated"]))
    tiles.append(tile("Tokens", number(lastOf(m["tokens/generated"])), `generated; ${number(lastOf(m["tokens/trained"]))} trained`));
  return tiles;
}

function text(value) {
  if (value === null || typeof value !== "object") return String(value);
  return Object.entries(value).map(([name, v]) => `${name} ${v}`).join(", ");
}

function lead(content, place) {
  const held = heldOut(content, axisChosen);
  return el("div", { class: held ? "lead" : "lead alone" },
    held ? place(held) : null, health(content));
}

function health(content) {
  const box = el("div", { class: "health card" }, el("h2", { text: "Health" }));
  if (!content.findings.length) {
    box.append(el("p", { class: "good", text: "✓ No threshold was crossed." }));
    return box;
  }
  const list = el("ol", { class: "findings" });
  for (const finding of content.findings) {
    const links = (finding.episodes || []).map((id) => el("a", { href: address({ view: "episodes", episode: id }), text: id }));
    list.append(el("li", {},
      el("span", { class: "what" }, "▲ ", el("strong", { text: finding.name }), ` at step ${finding.step}`),
      el("p", { text: finding.message }),
      links.length ? el("p", { class: "links" }, "Episodes: ", links.flatMap((link) => [link, " "])) : null));
  }
  box.append(el("p", { class: "help", text: "The first is the cause as far as metrics can tell; later ones may be its effects." }), list);
  return box;
}

function branches(content) {
  const list = changes(content);
  if (!list.length) return null;
  return section("Changed on the way", "Up to the first of these steps the run is exactly what its first settings make of it.",
    el("ul", { class: "history" }, list.map((entry) => el("li", { text: `from step ${entry.step} on: ${entry.text}` }))));
}

function perKind(content) {
  const rows = content.evals.shown.filter((row) => row.kinds && Object.keys(row.kinds).length);
  if (!rows.length) return null;
  const [first, last] = [rows[0], rows[rows.length - 1]];
  const lines = [];
  for (const [kind, now] of Object.entries(last.kinds)) {
    const before = first !== last && first.kinds[kind];
    if (before) lines.push({ ...asRow(before), label: kind, note: `step ${first.step}`, colour: 6, hollow: true });
    lines.push({ ...asRow(now), label: before ? "" : kind, note: `step ${last.step}`, colour: 0 });
  }
  const help = `${last.name || "evaluation"}: hollow before, full after; whiskers are 95% intervals`;
  return section("Held-out accuracy by kind", help,
    el("div", { class: "card" }, intervals(lines, { format: (v) => percent(v, 0), low: 0, high: 1, caption: "accuracy by kind" })));
}

function asRow(value) {
  if (Array.isArray(value)) return { mean: value[0], low: value[1], high: value[2] };
  return typeof value === "number" ? { mean: value } : value;
}

function refusals(content) {
  const list = content.evals.refused;
  if (!list.length) return null;
  return section("Results not shown", "A number without its card cannot be quoted.",
    el("ul", {}, list.map((row) => el("li", { text: `${row.name || "evaluation"} at step ${row.step ?? "?"} lacks ${row.lacks.join(", ")}` }))));
}

function settingsView(content) {
  return el("div", { class: "twocolumns" },
    section("Settings", "the resolved plan of the run", el("div", { class: "card" }, facts(content.config))),
    section("Environment", "what it ran on", el("div", { class: "card" }, facts(content.card))));
}
