// What was thought of on the way to an answer: its tree, with what each node was worth. Arrow keys walk it.

function withoutTree(notes) {
  const { search, ...rest } = notes;
  return rest;
}

function searchTree(search) {
  const nodes = search.nodes || [];
  if (!nodes.length) return null;
  const below = new Map();
  nodes.forEach((node, i) => below.set(node.parent ?? -1, (below.get(node.parent ?? -1) || []).concat(i)));
  const list = el("ul", { class: "tree", role: "tree", "aria-label": "search tree; arrow keys walk it, Enter opens and closes" });
  (below.get(-1) || []).forEach((i) => list.append(branch(nodes, below, i, 1)));
  const items = () => [...list.querySelectorAll("[role=treeitem]")].filter((item) => !item.parentElement.closest("[aria-expanded=false]"));
  const first = list.querySelector("[role=treeitem]");
  first.tabIndex = 0;
  const focus = (item) => {
    if (!item) return;
    list.querySelectorAll("[tabindex='0']").forEach((other) => { other.tabIndex = -1; });
    item.tabIndex = 0;
    item.focus();
  };
  const fold = (item, open) => item.hasAttribute("aria-expanded") && item.setAttribute("aria-expanded", String(open));
  list.addEventListener("keydown", (event) => {
    const item = event.target.closest("[role=treeitem]");
    const shown = items();
    const at = shown.indexOf(item);
    const open = item.getAttribute("aria-expanded");
    const act = {
      ArrowDown: () => focus(shown[at + 1]), ArrowUp: () => focus(shown[at - 1]), Home: () => focus(shown[0]), End: () => focus(shown.at(-1)),
      ArrowRight: () => (open === "false" ? fold(item, true) : open && focus(shown[at + 1])),
      ArrowLeft: () => (open === "true" ? fold(item, false) : focus(item.parentElement.closest("[role=treeitem]"))),
      Enter: () => fold(item, open === "false"),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
  list.addEventListener("click", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (!item) return;
    focus(item);
    if (event.target.closest(".node") === item.firstChild) fold(item, item.getAttribute("aria-expanded") === "false");
  });
  const spent = search.spent || {};
  const said = [plural(nodes.length, "node"), `${number(spent.tokens)} tokens`, `${number(spent.flops)} FLOPs`,
    search.oracle && "oracle: the checker was asked on the way", spent.exhausted && "the budget ended first",
    search.left_out && `${search.left_out} further nodes are not in this file`].filter(Boolean).join(" · ");
  return el("details", { class: "search", open: true }, el("summary", { text: "What was thought of on the way" }),
    el("p", { class: "help", text: `${said}. ★ marks the path that was chosen.` }), list);
}

function branch(nodes, below, at, level) {
  const node = nodes[at];
  const worth = [["value", "value"], ["visits", "visits"], ["score", "score"], ["answer", "answer"], ["tokens", "tokens"]]
    .filter(([name]) => node[name] !== undefined && node[name] !== null)
    .map(([name, label]) => `${label} ${typeof node[name] === "number" ? number(node[name]) : node[name]}`).join(" · ");
  const children = below.get(at) || [];
  return el("li", {
    role: "treeitem", tabindex: "-1", "aria-level": String(level), "aria-expanded": children.length ? "true" : null,
    class: node.chosen ? "chosen" : "", "aria-label": `${node.chosen ? "chosen, " : ""}${node.tag}: ${visible(node.text).slice(0, 120)}${worth ? `; ${worth}` : ""}`,
  },
  el("div", { class: "node" }, el("strong", { text: `${node.chosen ? "★ " : ""}${node.tag}` }), el("span", { class: "words", text: node.text }),
    el("span", { class: "help", text: worth })),
  children.length ? el("ul", { role: "group" }, children.map((i) => branch(nodes, below, i, level + 1))) : null);
}
