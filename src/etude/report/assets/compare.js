// Arms against each other at equal compute.

const COSTS = [["flops", "FLOPs"], ["tokens", "tokens"], ["seconds", "seconds"], ["fraction", "share of budget"]];
let costChosen = null;

function comparisonView(results) {
  const arms = results.arms;
  const page = el("div", { class: "comparison" });
  const drawn = results.curves || arms;
  const inference = results.kind === "inference";
  const costs = COSTS.filter(([name]) => drawn.some((arm) => (arm.curve || []).some((p) => p[name] != null)));
  if (!costs.some(([name]) => name === costChosen)) costChosen = costs.length ? costs[0][0] : "flops";
  let made = null;
  const place = el("div");
  const drawCurve = () => {
    if (made) forget(made);
    made = chart(againstCost(drawn, costChosen));
    place.replaceChildren(made.box);
  };
  drawCurve();
  const sizes = `${results.problems} held-out problems × ${results.samples} samples, ${plural(results.seeds.length, "seed")} (${results.seeds.join(", ")})`;
  page.append(
    el("div", { class: "verdict-banner" }, (results.sentences || [results.verdict]).map((text) => el("p", { class: "lead-text", text })), el("p", { class: "help", text: sizes })),
    el("section", {}, el("div", { class: "sectionhead" }, el("h2", { text: inference ? "Accuracy against inference compute, a problem" : "Accuracy against compute" }),
      costs.length > 1 && choice("Cost", costs, costChosen, (name) => { costChosen = name; drawCurve(); })), place),
    section(`Difference from ${arms[0].name}`, "percentage points of held-out accuracy, paired by problem and seed; 95% intervals; p after Holm's correction",
      el("div", { class: "card" }, forest(arms))),
    section("Arms", inference ? `a problem; ${results.budget}` : "an arm that is not valid is not ranked", inference ? methodTable(arms) : armTable(arms)),
    ...(results.tuning ? [section("Learning rates tried", "accuracy on tuning problems of their own; paid for with half of every arm's budget", tuningTable(results.tuning))] : []),
    section("Settings that differ", null, settingsTable(arms)),
    section("Environment", null, el("div", { class: "card" }, facts(results.card))),
  );
  page.leave = () => made && forget(made);
  return page;
}

function againstCost(arms, cost) {
  const x = [...new Set(arms.flatMap((arm) => (arm.curve || []).map((p) => p[cost])))].filter((v) => v != null).sort((a, b) => a - b);
  const series = arms.map((arm, i) => {
    const at = new Map((arm.curve || []).map((p) => [p[cost], p]));
    const pick = (key) => x.map((v) => at.get(v)?.[key] ?? null);
    return {
      label: arm.valid ? arm.name : `${arm.name} (invalid)`, values: pick("mean"), low: pick("low"), high: pick("high"),
      colour: i, points: true, dash: arm.valid ? undefined : [3, 4],
    };
  });
  return {
    id: "compute", title: "Held-out accuracy", help: "mean over seeds, with 95% intervals", x, series, low: 0, high: 1, format: percent,
    tall: true, xlabel: COSTS.find(([name]) => name === cost)[1],
  };
}

function points(value) {
  const size = Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(1);
  return (value > 0 ? "+" : "") + size.replace("-", "−");
}

function likelihood(p) {
  return p < 0.001 ? "p < 0.001" : `p ${number(p, 2)}`;
}

function forest(arms) {
  const rows = arms.slice(1).map((arm, i) => {
    const d = arm.difference;
    if (!arm.valid || !d) return { label: arm.name, note: arm.valid ? "not compared" : `invalid: ${arm.cause}`, colour: i + 1 };
    return { label: arm.name, mean: d.points, low: d.low, high: d.high, note: likelihood(d.p_holm ?? d.p), colour: i + 1 };
  });
  return intervals(rows, { format: points, zero: 0, caption: "difference from the first arm" });
}

function armTable(arms) {
  const head = ["Arm", "Valid", "Final accuracy", "Best with probability", "Tokens", "Time", "Look inside"];
  const body = arms.map((arm, i) => {
    const key = el("span", { class: "key" });
    key.style.background = colour(i);
    const links = (arm.runs || []).map((run, k) => el("a", { href: address({ view: "curves", run, episode: "" }), text: `run ${k + 1}`, title: run }));
    const episodes = (arm.runs || []).slice(0, 1).map((run) => el("a", { href: address({ view: "episodes", run, episode: "" }), text: "episodes" }));
    return el("tr", { class: arm.valid ? "" : "invalid" },
      el("th", { scope: "row" }, key, arm.name, arm.recipe && arm.recipe !== arm.name ? el("small", { text: arm.recipe }) : null),
      el("td", { text: arm.valid ? "✓ yes" : `✗ ${arm.cause || "no"}` }),
      el("td", { text: arm.final ? interval(arm.final) : "–" }),
      el("td", { text: arm.valid ? percent(arm.best_probability, 0) : "–" }),
      el("td", { text: number(Math.round(arm.tokens)) }),
      el("td", { text: duration(arm.seconds) + (arm.alone ? "" : " (shared)") }),
      el("td", {}, [...episodes, ...links].flatMap((link) => [link, " "])));
  });
  const shared = arms.some((arm) => !arm.alone);
  return el("div", {}, el("div", { class: "scroll card" }, el("table", { class: "arms" },
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col", text: name })))), el("tbody", {}, body))),
    shared && el("p", { class: "help", text: "A time marked shared was taken while other arms ran beside it; compare seconds only between arms that ran alone." }));
}

// Methods of inference: what they reached and what a problem cost.
function methodTable(arms) {
  const head = ["Method", "Accuracy", "Best with probability", "FLOPs", "Measured FLOPs", "Tokens", "Calls", "Prompts shared", "Budget ended first", "Look inside"];
  const body = arms.map((arm) => el("tr", {},
    el("th", { scope: "row" }, arm.name, arm.oracle ? el("small", { text: "oracle: asks the checker" }) : null),
    [interval(arm.final), percent(arm.best_probability, 0), number(arm.flops), number(arm.measured_flops), number(arm.tokens), number(arm.calls),
      percent(arm.shared, 0), percent(arm.exhausted, 0)].map((text) => el("td", { text })),
    el("td", {}, (arm.runs || []).slice(0, 1).map((run) => el("a", { href: address({ view: "episodes", run, episode: "" }), text: "episodes" })))));
  return el("div", { class: "scroll card" }, el("table", { class: "arms" },
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col", text: name })))), el("tbody", {}, body)));
}

function settingsTable(arms) {
  const names = [...new Set(arms.flatMap((arm) => Object.keys(arm.settings || {})))];
  const show = (value) => (value === undefined || value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));
  const differ = names.filter((name) => new Set(arms.map((arm) => show((arm.settings || {})[name]))).size > 1);
  if (!differ.length) return el("p", { class: "help", text: "None: the arms differ in their recipe alone." });
  return el("div", { class: "scroll card" }, el("table", { class: "arms" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Setting" }), arms.map((arm) => el("th", { scope: "col", text: arm.name })))),
    el("tbody", {}, differ.map((name) => el("tr", {}, el("th", { scope: "row", text: name }),
      arms.map((arm) => el("td", { text: show((arm.settings || {})[name]) })))))));
}

// What each arm's search for a learning rate saw, the chosen one first.
function tuningTable(tuning) {
  return el("div", { class: "scroll card" }, el("table", { class: "arms tuning" }, el("tbody", {}, Object.entries(tuning).map(([arm, rates]) =>
    el("tr", {}, el("th", { scope: "row", text: arm }), Object.entries(rates).map(([rate, accuracy], i) =>
      el("td", { text: `${i ? "" : "✓ "}${number(Number(rate))}: ${percent(accuracy)}` })))))));
}

// Chooses which run of which arm is looked at.
function runPicker(arms, current, go) {
  const box = el("select", { name: "run", "aria-label": "arm and run", onchange: (event) => go(event.target.value) });
  for (const arm of arms)
    box.append(el("optgroup", { label: visible(arm.name) }, (arm.runs || []).map((run, k) =>
      el("option", { value: run, text: arm.runs.length > 1 ? `${arm.name}, run ${k + 1}` : arm.name }))));
  box.value = current;
  return el("label", { class: "picker" }, el("span", { text: "Arm" }), box);
}
