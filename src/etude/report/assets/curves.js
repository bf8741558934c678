// Which curves a run has, from whatever metrics it recorded. A missing metric is a missing chart, not an error.

const AXES = [["step", "steps"], ["tokens/generated", "tokens"], ["flops", "FLOPs"], ["seconds", "seconds"]];

const CURVES = [
  ["Learning", [
    ["reward", "Reward", "mean over the episodes of a step", percent],
    ["validation/accuracy", "Validation accuracy", "on problems set aside to decide on, neither trained on nor examined", percent],
    ["signal", "Signal share", "groups whose attempts differ; at zero nothing is learned", percent],
    ["signal_tokens", "Tokens with signal", "share of sampled tokens that carry credit", percent],
  ]],
  ["What the policy does", [
    ["length", "Length", "sampled tokens per episode", number],
    ["truncated", "Truncated", "episodes cut at the length limit", percent],
    ["entropy", "Entropy", "nats per token; towards zero it always says the same", number],
    ["kl_start", "KL from the start", "nats per token away from the starting weights, on fixed tokens", number],
  ]],
  ["Whether the update can be trusted", [
    ["gap", "Sampler gap", "mean |log p sampler − log p trainer|, nats per token", number],
    ["grad_norm", "Gradient norm", "before clipping", number],
    ["kl_update", "KL of an update", "nats per token that one step moved the policy, on one group", number],
    ["kl_sampler", "KL from the sampler", "nats per token away from the policy that sampled the batch", number],
    ["clip", "Clipped", "share of tokens whose ratio was clipped", percent],
    ["errors", "Checker errors", "share of episodes that could not be judged", percent],
  ]],
];

// The charts of a run: [{title, specs}], over the chosen horizontal axis.
function curves(content, axis) {
  const m = content.metrics;
  const steps = m.step || [];
  const x = m[axis] || steps;
  const xlabel = (AXES.find(([name]) => name === axis) || AXES[0])[1];
  const at = new Map(steps.map((step, i) => [step, x[i]]));
  const marks = content.findings.map((f) => ({ x: at.get(f.step) ?? f.step, text: f.name }));
  for (const entry of changes(content)) marks.push({ x: at.get(entry.step) ?? entry.step, text: "changed" });
  const base = { x, xlabel, marks };
  const groups = CURVES.map(([title, list]) => ({
    title,
    specs: list.filter(([name]) => some(m[name])).map(([name, label, help, format]) => ({
      ...base, id: name, title: label, help, format, low: 0, high: format === percent ? 1 : undefined, series: noisy(m[name]),
    })),
  }));
  groups[0].specs.push(...family(m, base, /^kind\/(.+)\/reward$/, "kinds", "Reward by kind", "training tasks", percent));
  groups[1].specs.push(...family(m, base, /^score\/(.+)$/, "scores", "Scores", "means of what the reward stage wrote", number));
  groups[2].specs.push(...family(m, base, /^loss\/(.+)$/, "losses", "Loss terms", "not comparable between methods", number));
  groups.push({ title: "Where the time goes", specs: timing(m, base) });
  groups.push({ title: "Curriculum", specs: curriculum(m, base) });
  groups.push({ title: "Abstention", specs: abstention(content) });
  for (const { specs } of groups) if (specs.length % 4 === 1) specs[specs.length - 1].wide = true; // rows hold four
  return groups.filter((group) => group.specs.length);
}

// What was changed when the run was resumed: [{step, text}].
function changes(content) {
  return ((content.config || {}).history || []).map((entry) => ({
    step: entry.step,
    text: Object.entries(entry.changed).map(([what, [was, now]]) => `${what} ${was ?? "–"} → ${now ?? "–"}`).join(", "),
  }));
}

function some(values) {
  return Boolean(values) && values.some((v) => v !== null);
}

// The row itself when short; else the row drawn thin under its trailing mean.
function noisy(values) {
  const width = smoothing(values.length);
  if (width === 1) return [{ values }];
  return [{ values, faint: true, colour: 0 }, { values: smooth(values, width), colour: 0 }];
}

// How many steps the bold lines are means of.
function smoothing(steps) {
  return steps < 40 ? 1 : Math.max(5, Math.round(steps / 25));
}

function family(m, base, pattern, id, title, help, format) {
  const found = Object.keys(m).filter((name) => pattern.test(name) && some(m[name]));
  if (!found.length || found.length > 8) return [];
  const width = smoothing(base.x.length);
  const series = found.map((name, i) => ({
    label: name.match(pattern)[1], values: smooth(m[name], width), colour: i, dash: i % 2 ? [4, 3] : undefined,
  }));
  return [{ ...base, id, title, help, format, series }];
}

function timing(m, base) {
  const specs = [];
  const parts = ["rollout", "check", "train", "other"].filter((part) => some(m[`time/${part}`]));
  if (parts.length)
    specs.push({
      ...base, id: "time", title: "Seconds per step", help: "stacked", stacked: true, format: number,
      series: parts.map((part, i) => ({ label: part, values: m[`time/${part}`], colour: i })),
    });
  for (const [name, title, help] of [
    ["tokens_per_second", "Tokens per second", "sampled"], ["rss_mb", "Memory", "MB resident"],
  ])
    if (some(m[name])) specs.push({ ...base, id: name, title, help, format: number, low: 0, series: noisy(m[name]) });
  return specs;
}

function curriculum(m, base) {
  const names = Object.keys(m).filter((name) => name.startsWith("curriculum/") && some(m[name]));
  if (!names.length) return [];
  if (names.length > 6) return [{ ...base, id: "curriculum", title: "Curriculum", heat: names.map((n) => [n.slice(11), m[n]]) }];
  const series = names.map((name, i) => ({ label: name.slice(11), values: m[name], colour: i, dash: i % 2 ? [4, 3] : undefined }));
  return [{ ...base, id: "curriculum", title: "Curriculum", help: "its state, arm by arm", format: number, series }];
}

// Held-out accuracy with its intervals; evaluations are matched to the axis by what they recorded themselves.
function heldOut(content, axis) {
  const field = { step: "step", "tokens/generated": "tokens", flops: "flops", seconds: "seconds" }[axis];
  const byName = new Map();
  for (const row of content.evals.shown) {
    const name = row.name || "evaluation";
    byName.set(name, (byName.get(name) || []).concat(row));
  }
  if (!byName.size) return null;
  const where = (row) => row[field] ?? row.step;
  const x = [...new Set(content.evals.shown.map(where))].sort((a, b) => a - b);
  const series = [...byName].map(([label, rows], i) => {
    const at = new Map(rows.map((row) => [where(row), row]));
    const pick = (key) => x.map((v) => at.get(v)?.[key] ?? null);
    return { label, values: pick("mean"), low: pick("low"), high: pick("high"), colour: i, points: true };
  });
  return {
    id: "heldout", title: "Held-out accuracy", help: "tasks never trained on, with 95% intervals", x, series, low: 0, high: 1,
    format: percent, tall: true, xlabel: (AXES.find(([name]) => name === axis) || AXES[0])[1], marks: [],
  };
}

// The risk-coverage curves of the first and the last evaluation with abstentions, and what became of the samples.
function abstention(content) {
  const rows = content.evals.shown.filter((row) => row.abstention && row.abstention.curve.length);
  if (!rows.length) return [];
  const told = rows.length > 1 ? [rows[0], rows.at(-1)] : rows;
  const x = [...new Set(told.flatMap((row) => row.abstention.curve.map((point) => point[0])))].sort((a, b) => a - b);
  const curve = (row, colour) => {
    const at = new Map(row.abstention.curve.map((point) => [point[0], point[1]]));
    return { label: `step ${row.step}`, values: x.map((v) => at.get(v) ?? null), colour, points: true };
  };
  const specs = [{
    id: "risk-coverage", title: "Risk over coverage", x, xlabel: "coverage", low: 0, high: 1, format: percent, marks: [], apart: true,
    help: `wrong among the surest answers, by ${told.at(-1).abstention.confidence}`, series: told.map((row, i) => curve(row, told.length > 1 ? [6, 0][i] : 0)),
  }];
  const steps = [...new Set(rows.map((row) => row.step))];
  const last = new Map(rows.map((row) => [row.step, row.abstention.shares]));
  const line = (name, label, colour) => ({ label, values: steps.map((step) => last.get(step)[name]?.mean ?? null), colour, points: true });
  specs.push({
    id: "abstention", title: "Abstention", help: "shares of held-out samples", x: steps, xlabel: "step", low: 0, high: 1, format: percent, marks: [],
    series: [["abstained", "abstained", 2], ["unanswerable", "where there is no answer", 3], ["selective", "right of what was answered", 0]]
      .map((parts) => line(...parts)).filter((one) => some(one.values)),
  });
  return specs;
}

// Many arms over many steps: a row per arm, darker for more.
function heatmap(spec) {
  const columns = Math.min(spec.x.length, 160);
  const known = spec.heat.flatMap(([, values]) => values.filter((v) => v !== null));
  const low = Math.min(0, ...known);
  const high = Math.max(...known);
  const picture = svg("svg", { class: "heat", viewBox: `0 0 ${columns} ${spec.heat.length}`, preserveAspectRatio: "none" });
  spec.heat.forEach(([name, values], row) => {
    for (let c = 0; c < columns; c++) {
      const value = values[Math.floor((c * values.length) / columns)];
      if (value === null || value === undefined) continue;
      const share = (value - low) / (high - low || 1);
      const cell = svg("rect", { x: c, y: row + 0.06, width: 1.02, height: 0.88, fill: colour(0), "fill-opacity": 0.06 + 0.94 * share });
      cell.append(svg("title", { text: `${name}, ${spec.xlabel} ${number(spec.x[Math.floor((c * spec.x.length) / columns)])}: ${number(value)}` }));
      picture.append(cell);
    }
  });
  const names = el("div", { class: "heatnames" }, spec.heat.map(([name]) => el("span", { text: name })));
  const box = el("div", { class: "heatbox" }, names, picture);
  box.style.height = `${22 * spec.heat.length}px`;
  return el("figure", { class: "chart wide", "data-chart": spec.id },
    el("figcaption", {}, el("span", { class: "name", text: spec.title }),
      el("span", { class: "help", text: `each row an arm, from ${number(low)} (pale) to ${number(high)} (full)` })), box);
}
