// One episode: its conversation turn by turn, each token coloured, its verdicts, and its group beside it.

let tokenMode = "credit";

function symbol(row) {
  if (row.failed) return "!";
  return row.correct ? "✓" : "✗";
}

function verdictWord(row) {
  if (row.failed) return "error";
  return row.correct ? "pass" : "fail";
}

function badge(row) {
  return el("span", { class: `badge ${verdictWord(row)}`, text: `${symbol(row)} ${verdictWord(row)}` });
}

// A value per token; what is stored as one number holds on sampled tokens and is zero elsewhere.
function perToken(row, sampled) {
  if (row === null || row === undefined) return null;
  return Array.isArray(row) ? row : sampled.map((yes) => (yes ? row : 0));
}

function tokensOf(episode) {
  const count = episode.pieces.length;
  const sampled = Array(count).fill(false);
  for (const span of episode.spans) if (span.sampled) sampled.fill(true, span.start, Math.min(span.end, count));
  const laid = (values) => {
    let next = 0;
    return sampled.map((yes) => (yes ? values[next++] : null));
  };
  const logp = laid(episode.logp);
  const after = episode.after && laid(episode.after);
  const change = after && after.map((value, i) => (sampled[i] ? Math.exp(value) - Math.exp(logp[i]) : 0));
  return { sampled, logp, after, change, credit: perToken(episode.credit, sampled), weights: episode.weights };
}

// The largest credit and the largest change in the group: colours mean the same in all of its episodes.
function scalesOf(group) {
  const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value || 0)), 0);
  return {
    credit: Math.max(0, ...group.map((row) => largest(Array.isArray(row.credit) ? row.credit : [row.credit]))),
    change: Math.max(0, ...group.map((row) => largest(tokensOf(row).change || []))),
  };
}

function modesOf(episode) {
  const modes = [["credit", "Credit"], ["logp", "Log-probability"], ["sampled", "Sampled"]];
  if (episode.after) modes.push(["change", "Change by the update"]);
  for (const name of Object.keys(episode.weights || {})) modes.push([`weight:${name}`, `Weight: ${name}`]);
  return modes;
}

function paint(node, index, facts, mode, scales) {
  node.className = "token";
  node.style.backgroundColor = "";
  const sampled = facts.sampled[index];
  const mix = (name, share) => {
    node.style.backgroundColor = `color-mix(in srgb, var(${name}) ${Math.round(100 * share)}%, transparent)`;
  };
  if (mode === "sampled") {
    if (sampled) { mix("--cool", 0.3); node.classList.add("plus"); }
  } else if (mode === "logp") {
    if (sampled) mix("--odd", Math.min(0.7, -facts.logp[index] / 6));
  } else {
    const row = mode in scales ? facts[mode] : perToken(facts.weights[mode.slice(7)], facts.sampled);
    const value = row ? row[index] : 0;
    if (!value) return;
    const most = mode in scales ? scales[mode] : Math.max(...row.map(Math.abs));
    mix(value > 0 ? "--cool" : "--warm", 0.12 + 0.48 * Math.min(1, Math.abs(value) / (most || 1)));
    node.classList.add(value > 0 ? "plus" : "minus");
  }
}

function colourLegend(mode, scales) {
  const scale = scales[mode];
  const bar = (kind) => el("span", { class: `ramp ${kind}`, "aria-hidden": "true" });
  if (mode === "credit" && !scale)
    return el("p", { class: "key-line", text: "No token of this group carries credit: its attempts were rewarded alike." });
  if (mode === "credit")
    return el("p", { class: "key-line" }, `−${number(scale)} (dotted)`, bar("signed"), `+${number(scale)} (underlined)`,
      el("span", { class: "help", text: "the same scale for the whole group" }));
  if (mode === "change" && !scale) return el("p", { class: "key-line", text: "The update of this step changed no probability in this group." });
  if (mode === "change")
    return el("p", { class: "key-line" }, `−${percent(scale)} (dotted)`, bar("signed"), `+${percent(scale)} (underlined)`,
      el("span", { class: "help", text: "probability of the token after the step's update, less that when it was sampled; points, the same scale for the whole group" }));
  if (mode === "logp") return el("p", { class: "key-line" }, "certain", bar("odd"), "surprising (probability below 0.3%)");
  if (mode === "sampled") return el("p", { class: "key-line" }, bar("cool"), "written by the policy; all else was given to it");
  return el("p", { class: "key-line" }, bar("cool"), "how strongly this loss term acts on the token");
}

// The conversation. Returns {box, repaint}.
function transcript(episode, scales) {
  const facts = tokensOf(episode);
  const nodes = [];
  const box = el("div", { class: "turns" });
  const answered = episode.spans.filter((span) => span.sampled);
  const attempts = answered.filter((span) => span.tag === "attempt");
  const judged = [attempts, answered].find((list) => list.length === episode.verdicts.length) || [];
  for (const span of episode.spans) {
    const words = el("p", { class: "words" });
    for (let i = span.start; i < Math.min(span.end, episode.pieces.length); i++) {
      const node = document.createElement("span");
      node.textContent = visible(episode.pieces[i]).replace(/\n/g, "↵\n").replace(/\t/g, "⇥\t");
      node.dataset.at = i;
      nodes[i] = node;
      words.append(node);
    }
    const labels = [span.tag, span.hidden && "hidden when training", span.restart && "history rewritten here"].filter(Boolean);
    box.append(el("div", { class: span.sampled ? "turn mine" : "turn" },
      el("div", { class: "who" }, el("strong", { text: span.role }), labels.map((label) => el("span", { class: "tag", text: label })),
        el("span", { class: "count", text: plural(span.end - span.start, "token") })),
      words));
    const order = judged.indexOf(span);
    if (order >= 0) box.append(verdictBox(episode.verdicts[order]));
  }
  if (!judged.length) episode.verdicts.forEach((verdict) => box.append(verdictBox(verdict)));
  if (episode.cut) box.append(el("p", { class: "help", text: `${episode.cut} further tokens are not in this file.` }));
  if (episode.failure)
    box.append(el("div", { class: "verdict error" }, el("strong", { text: `! error in ${episode.failure.where}` }),
      el("pre", { text: episode.failure.traceback || episode.failure.error })));
  const repaint = () => nodes.forEach((node, i) => node && paint(node, i, facts, tokenMode, scales));
  repaint();
  return { box, repaint, nodes, facts };
}

function verdictBox(verdict) {
  const word = verdict.correct ? "pass" : "fail";
  return el("div", { class: `verdict ${word}` },
    el("strong", { text: `${verdict.correct ? "✓" : "✗"} ${word}` }), ` reward ${number(verdict.reward)}`,
    verdict.feedback ? el("p", { class: "words", text: verdict.feedback }) : null);
}

// What is known of the token under the pointer or the keyboard's cursor.
function reader(view, episode) {
  const line = el("p", { class: "token-facts", "aria-live": "polite", text: "Point at a token, or step through them with ← and →." });
  let at = -1;
  const show = (index) => {
    if (view.nodes[at]) view.nodes[at].classList.remove("here");
    at = index;
    const node = view.nodes[at];
    if (!node) return;
    node.classList.add("here");
    const { sampled, logp, after, credit } = view.facts;
    const said = JSON.stringify(visible(episode.pieces[at]));
    const parts = [`token ${at}`, said];
    if (sampled[at]) parts.push(`probability ${percent(Math.exp(logp[at]))}`, `log-probability ${number(logp[at])}`);
    if (sampled[at] && after) parts.push(`after the update ${percent(Math.exp(after[at]))}`);
    else parts.push("not sampled");
    if (credit) parts.push(`credit ${number(credit[at])}`);
    line.textContent = parts.join(" · ");
  };
  view.box.addEventListener("pointerover", (event) => {
    const node = event.target.closest(".token");
    if (node) show(Number(node.dataset.at));
  });
  view.box.tabIndex = 0;
  view.box.setAttribute("aria-label", "conversation; arrow keys step through its tokens");
  view.box.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(Math.min(view.nodes.length - 1, Math.max(0, at + move)));
    view.nodes[at].scrollIntoView({ block: "nearest" });
  });
  return line;
}

function episodeView(group, id, go) {
  const episode = group.find((row) => row.id === id);
  const scales = scalesOf(group);
  const view = transcript(episode, scales);
  const key = el("div");
  const modes = modesOf(episode);
  if (!modes.some(([mode]) => mode === tokenMode)) tokenMode = "credit";
  const repaint = () => { key.replaceChildren(colourLegend(tokenMode, scales)); view.repaint(); };
  repaint();
  const pick = choice("Colour of tokens", modes, tokenMode, (mode) => { tokenMode = mode; repaint(); });
  const scores = Object.entries(episode.scores).map(([name, value]) => `${name} ${number(value)}`).join(" · ");
  const box = el("article", { class: "episode" },
    el("div", { class: "episode-head" },
      el("h2", {}, badge(episode), ` Episode ${episode.id}`),
      el("p", { class: "help", text: `${episode.kind} · difficulty ${number(episode.difficulty)} · step ${episode.step} · ` +
        `sample ${episode.index} · ${plural(episode.length, "token")} sampled · stopped by ${episode.stop || "?"} · policy ${episode.policy_version}` }),
      el("p", { class: "scores", text: [scores, episode.answer !== null && `expected answer: ${episode.answer}`].filter(Boolean).join(" · ") })),
    groupStrip(group, episode, go),
    el("div", { class: "paintbar" }, pick, key),
    reader(view, episode), view.box,
    episode.notes && episode.notes.search && searchTree(episode.notes.search),
    episode.notes && el("details", {}, el("summary", { text: "Notes of the rollout" }), facts(withoutTree(episode.notes))),
    sideBySide(group, episode, scales, go));
  box.nextMode = () => pick.children[(modes.findIndex(([mode]) => mode === tokenMode) + 1) % modes.length].click();
  return box;
}

function groupStrip(group, episode, go) {
  if (group.length < 2) return null;
  return el("nav", { class: "strip", "aria-label": "episodes of this group" },
    el("span", { class: "help", text: "Group" }),
    group.map((row) => el("button", {
      type: "button", class: verdictWord(row), "aria-current": row.id === episode.id ? "true" : null,
      text: `${symbol(row)} ${number(row.reward)}`, title: `sample ${row.index}`, onclick: () => go(row.id),
    })));
}

// What every episode of the group said, in columns.
function sideBySide(group, episode, scales, go) {
  if (group.length < 2) return null;
  const columns = el("div", { class: "columns", tabindex: "0", role: "group", "aria-label": "the group side by side" });
  const box = el("details", { class: "beside" }, el("summary", { text: `The whole group side by side (${group.length})` }), columns);
  box.addEventListener("toggle", () => {
    if (!box.open) return;
    columns.replaceChildren(...group.map((row) => {
      const said = { ...row, spans: row.spans.filter((span) => span.sampled) };
      return el("div", { class: row.id === episode.id ? "column current" : "column" },
        el("div", { class: "who" }, badge(row), el("button", { type: "button", class: "plain", text: row.id, onclick: () => go(row.id) }),
          el("span", { class: "count", text: `reward ${number(row.reward)}` })),
        transcript(said, scales).box);
    }));
  });
  return box;
}
