// Line charts over uPlot: one look, bands for intervals, a synchronous cursor, a reading in words.

const drawn = new Set(); // charts on screen, to be resized and recoloured
const cursorSync = uPlot.sync("step");

// spec: {id, title, help, x: [..], xlabel, series: [{label, values, low, high, colour, faint, dash, points}],
//        marks: [{x, text}], low, high, format, stacked, tall, apart: its axis is its own}
function chart(spec) {
  const reading = el("span", { class: "reading" });
  const plot = el("div", { class: "plot" });
  const box = el(
    "figure", { class: ["chart", spec.tall && "tall", spec.wide && "wide"].filter(Boolean).join(" "), role: "group", "data-chart": spec.id, "aria-label": inWords(spec) },
    el("figcaption", {}, el("span", { class: "name", text: spec.title }), reading,
      spec.help && el("span", { class: "help", text: spec.help })),
    plot,
  );
  const self = { spec, box, plot, reading, uplot: null };
  self.draw = () => draw(self);
  self.update = (fresh) => { self.spec = fresh; box.setAttribute("aria-label", inWords(fresh)); draw(self); };
  drawn.add(self);
  watcher.observe(plot);
  return self;
}

function forget(self) {
  watcher.unobserve(self.plot);
  if (self.uplot) self.uplot.destroy();
  drawn.delete(self);
}

const watcher = new ResizeObserver((entries) => {
  for (const entry of entries)
    for (const self of drawn)
      if (self.plot === entry.target) {
        const width = Math.floor(entry.contentRect.width);
        if (!self.uplot) draw(self);
        else if (Math.abs(self.uplot.width - width) > 1) self.uplot.setSize({ width, height: self.uplot.height });
      }
});

function redrawAll() {
  for (const self of drawn) draw(self);
}

function inWords(spec) {
  const parts = spec.series.map((s) => {
    const known = s.values.filter((v) => v !== null && v !== undefined);
    if (!known.length) return "";
    const format = spec.format || number;
    return `${s.label || spec.title} from ${format(known[0])} to ${format(known[known.length - 1])}`;
  });
  return `${spec.title}: ${parts.filter(Boolean).join("; ")}`;
}

function draw(self) {
  const { spec, plot } = self;
  if (self.uplot) self.uplot.destroy();
  plot.replaceChildren();
  self.uplot = null;
  const width = Math.floor(plot.clientWidth);
  if (!width) return;
  const shown = spec.stacked ? stack(spec.series) : spec.series;
  const data = [spec.x];
  const series = [{}];
  const bands = [];
  shown.forEach((s, index) => {
    const tint = s.colour === undefined ? colour(index) : colour(s.colour);
    if (s.low && s.high) {
      data.push(s.high, s.low);
      const edge = { stroke: fade(tint, 0.35), width: 0.75, points: { show: false }, spanGaps: true };
      series.push({ ...edge }, { ...edge });
      bands.push({ series: [data.length - 2, data.length - 1], fill: fade(tint, 0.16) });
    }
    data.push(s.values);
    series.push({
      stroke: s.faint ? fade(tint, 0.4) : tint, width: s.faint ? 1 : 2, dash: s.dash, spanGaps: true,
      fill: spec.stacked ? fade(tint, 0.55) : undefined,
      points: { show: s.points || s.values.length === 1, size: 6, fill: tint },
    });
    if (spec.stacked && index > 0) bands.push({ series: [data.length - 1, data.length - 2], fill: fade(tint, 0.55) });
  });
  if (spec.stacked) for (let i = 2; i < series.length; i++) series[i].fill = undefined;
  self.uplot = new uPlot(options(self, width, series, bands), data, plot);
  self.keys = null;
  if (spec.series.length > 1 && !spec.series[0].faint) plot.append((self.keys = legend(spec.series)));
  read(self, null);
}

function options(self, width, series, bands) {
  const { spec } = self;
  const ink = css("--muted");
  const grid = { stroke: css("--grid"), width: 1 };
  const axis = { stroke: ink, grid, ticks: { show: false }, font: "11px system-ui", gap: 4 };
  const format = spec.format || number;
  return {
    width, height: spec.tall ? 260 : 150, series, bands, legend: { show: false },
    scales: {
      x: { time: false, range: (u, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
      y: { range: (u, low, high) => yRange(spec, low, high) },
    },
    axes: [
      { ...axis, size: 24, space: 60, values: (u, ticks) => ticks.map((t) => number(t)) },
      { ...axis, size: 48, space: 32, values: (u, ticks) => ticks.map((t) => (format === percent ? percentTick(t, ticks) : format(t))) },
    ],
    cursor: {
      sync: spec.apart ? undefined : { key: cursorSync.key, setSeries: false }, drag: { x: true, y: false },
      points: { size: 6 },
    },
    hooks: {
      setCursor: [(u) => read(self, u.cursor.idx)],
      draw: [(u) => marks(u, spec.marks || [])],
    },
  };
}

function percentTick(value, ticks) {
  const fine = ticks.length > 1 && ticks[1] - ticks[0] < 0.0099;
  return percent(value, fine ? 1 : 0);
}

function yRange(spec, low, high) {
  if (low === null || low === undefined) return [0, 1];
  if (spec.stacked) return [0, high * 1.08 || 1];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 0.5;
  let bottom = low >= 0 && low - room < 0.35 * high ? 0 : low - room;
  let top = high + room;
  if (spec.low !== undefined) bottom = Math.max(bottom, spec.low);
  if (spec.high !== undefined) top = Math.min(top, Math.max(spec.high, high));
  return [bottom, top > bottom ? top : bottom + 1];
}

// Findings as dashed verticals with a triangle at the foot: a shape, not only a colour.
function marks(u, list) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = css("--warn");
  ctx.lineWidth = devicePixelRatio;
  for (const mark of list) {
    const x = Math.round(u.valToPos(mark.x, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    const foot = bbox.top + bbox.height;
    const size = 5 * devicePixelRatio;
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, foot);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.beginPath();
    ctx.moveTo(x - size, foot);
    ctx.lineTo(x + size, foot);
    ctx.lineTo(x, foot - 1.6 * size);
    ctx.fill();
  }
  ctx.restore();
}

function stack(series) {
  const sums = [];
  return series.map((s) => ({ ...s, values: s.values.map((v, i) => (sums[i] = (sums[i] || 0) + (v || 0))) }));
}

// The values at the cursor, or the last known ones: beside the title, or each beside its key.
function read(self, index) {
  const { spec, keys } = self;
  const away = index === null || index === undefined;
  const format = spec.format || number;
  const words = spec.series.map((s) => {
    let at = away ? s.values.length - 1 : index;
    if (away) while (at > 0 && s.values[at] == null) at--;
    if (s.values[at] == null) return "–";
    return format(s.values[at]) + (s.low && s.low[at] != null ? ` [${format(s.low[at])}, ${format(s.high[at])}]` : "");
  });
  if (keys) words.forEach((word, i) => (keys.children[i].lastChild.textContent = word));
  const where = away ? "" : `${spec.xlabel || "step"} ${number(spec.x[index])}`;
  const mine = keys ? "" : words[words.length - 1];
  self.reading.textContent = [where, mine].filter(Boolean).join(": ");
}

function legend(series) {
  const list = el("div", { class: "legend" });
  series.forEach((s, index) => {
    const key = el("span", { class: "key" });
    const tint = colour(s.colour === undefined ? index : s.colour);
    key.style.background = s.dash ? `repeating-linear-gradient(90deg, ${tint} 0 4px, transparent 4px 7px)` : tint;
    list.append(el("span", {}, key, `${s.label} `, el("b")));
  });
  return list;
}

// Trailing mean, for noisy rows: each point is the mean of itself and up to `width - 1` before it.
function smooth(values, width) {
  return values.map((value, i) => {
    if (value == null) return null;
    const near = values.slice(Math.max(0, i - width + 1), i + 1).filter((v) => v != null);
    return near.reduce((a, b) => a + b, 0) / near.length;
  });
}
