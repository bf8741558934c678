// The folder that `etude view` serves.

function homeView(listing) {
  const runs = listing.runs.filter((row) => row.kind === "run");
  const comparisons = listing.runs.filter((row) => row.kind === "comparison");
  if (!listing.runs.length)
    return el("p", { class: "empty", text: "No runs here yet. `etude train RECIPE --model smollm2 --tasks NAME` writes one." });
  const page = el("div", { class: "home" });
  if (comparisons.length)
    page.append(section("Comparisons", null, el("div", { class: "grid" }, comparisons.map((row) =>
      el("a", { class: "card open", href: `/?run=${encodeURIComponent(row.name)}` }, el("strong", { text: row.name }),
        el("span", { class: "help", text: row.broken || row.verdict || plural(row.arms, "arm") }))))));
  if (runs.length) page.append(section("Runs", null, runTable(runs)));
  return page;
}

function runTable(runs) {
  const head = ["Run", "Step", "Reward", "Held-out accuracy", "Time", "Health", "Last change"];
  const ordered = [...runs].sort((a, b) => (b.changed || 0) - (a.changed || 0));
  return el("div", { class: "scroll card" }, el("table", { class: "arms" },
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col", text: name })))),
    el("tbody", {}, ordered.map((row) => {
      const link = el("a", { href: `/?run=${encodeURIComponent(row.name)}`, text: row.name });
      if (row.broken) return el("tr", {}, el("th", { scope: "row" }, link), el("td", { colspan: "6", text: row.broken }));
      const held = row.last ? (row.first.step === row.last.step ? "" : `${percent(row.first.mean)} → `) + interval(row.last) : "–";
      return el("tr", {}, el("th", { scope: "row" }, link, row.recipe && el("small", { text: text(row.recipe) })),
        el("td", { text: number(row.step) }), el("td", { text: percent(row.reward) }), el("td", { text: held }), el("td", { text: duration(row.seconds) }),
        el("td", { text: row.findings ? `▲ ${plural(row.findings, "finding")}` : "✓" }),
        el("td", { text: row.changed ? new Date(1000 * row.changed).toLocaleString() : "–" }));
    }))));
}
