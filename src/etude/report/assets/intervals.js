// Estimates with intervals as dots and whiskers, one row each: the forest plot and the accuracy per kind.

// rows: [{label, mean, low, high, colour, note, hollow}]; format: value -> text; zero: where a reference line stands
function intervals(rows, { format, zero, low, high, caption }) {
  const known = rows.filter((row) => row.mean != null);
  if (!known.length) return el("p", { class: "help", text: "Nothing to draw yet." });
  const ends = known.flatMap((row) => [row.mean, row.low, row.high]).filter((v) => v != null);
  if (zero !== undefined) ends.push(zero);
  let from = low !== undefined ? low : Math.min(...ends);
  let to = high !== undefined ? high : Math.max(...ends);
  const room = (to - from || 1) * 0.06;
  if (low === undefined) from -= room;
  if (high === undefined) to += room;
  const place = (value) => `${(100 * Math.min(1, Math.max(0, (value - from) / (to - from)))).toFixed(2)}%`;
  const box = el("div", { class: "intervals", role: "table", "aria-label": caption });
  for (const row of rows) box.append(intervalRow(row, place, format, zero));
  const scale = el("div", { class: "scale", "aria-hidden": "true" });
  for (const tick of nice(from, to)) {
    const mark = el("span", { text: format(tick) });
    mark.style.left = place(tick);
    scale.append(mark);
  }
  box.append(el("div", { class: "row foot" }, el("span"), scale, el("span")));
  return box;
}

function intervalRow(row, place, format, zero) {
  const track = svg("svg", { class: "track", height: 22, "aria-hidden": "true" });
  const tint = colour(row.colour || 0);
  const line = (x1, x2, y1, y2, attributes) => track.append(svg("line", { x1, x2, y1, y2, ...attributes }));
  line("0", "100%", 11, 11, { class: "rail" });
  if (zero !== undefined) line(place(zero), place(zero), 0, 22, { class: "zero" });
  if (row.low != null) line(place(row.low), place(row.high), 11, 11, { stroke: tint, "stroke-width": 3, "stroke-linecap": "round" });
  if (row.mean != null)
    track.append(svg("circle", {
      cx: place(row.mean), cy: 11, r: 5, stroke: tint, "stroke-width": 2, fill: row.hollow ? css("--card") : tint,
    }));
  const text = row.mean == null ? row.note || "–"
    : `${format(row.mean)}${row.low == null ? "" : ` [${format(row.low)}, ${format(row.high)}]`}`;
  return el("div", { class: "row", role: "row" },
    el("span", { class: "label", role: "cell", text: row.label }), track,
    el("span", { class: "value", role: "cell" }, text, row.mean != null && row.note && el("small", { text: row.note })));
}

function nice(from, to) {
  const rough = (to - from) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const ticks = [];
  for (let t = Math.ceil(from / step) * step; t <= to + step * 1e-6; t += step) ticks.push(Number(t.toPrecision(6)));
  return ticks;
}
