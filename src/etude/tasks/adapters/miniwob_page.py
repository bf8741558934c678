"""What runs inside a page of MiniWoB++: its core's own functions begin an episode and say how it went."""

from __future__ import annotations

START = """(seed) => {
  if (window.jQuery) jQuery.fx.off = true;
  core.EPISODE_MAX_TIME = 2147483647;  // turns bound an attempt, not the clock
  Math.seedrandom(seed);
  core.startEpisodeReal();
}"""
"""(seed) -> nothing: draws the task."""

STATE = "() => [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]"
"""() -> [whether it is over, the reward without its discount for time]."""

LIST = r"""() => {
  const lines = [], elements = [];
  const own = (node) => [...node.childNodes].filter((c) => c.nodeType === 3).map((c) => c.textContent).join(" ");
  const words = (text) => text.replace(/\s+/g, " ").trim();
  const seen = (node) => {
    const style = getComputedStyle(node), box = node.getBoundingClientRect();
    return style.display !== "none" && style.visibility !== "hidden" && (box.width > 0 || box.height > 0);
  };
  document.querySelectorAll("[data-etude]").forEach((e) => e.removeAttribute("data-etude"));
  const add = (node, what, said, options) => {
    const number = elements.length + 1;
    node.setAttribute("data-etude", number);
    elements.push([number, what, options]);
    lines.push(`[${number}] ${said}`.trim());
  };
  const about = (node) => {
    const tag = node.tagName.toLowerCase(), fill = node.getAttribute("fill") || node.style.backgroundColor;
    return words(`${tag} ${fill ? "(" + fill + ")" : ""} ${own(node) ? '"' + words(own(node)) + '"' : ""}`);
  };
  const walk = (node) => {
    for (const child of node.childNodes) {
      if (child.nodeType === 3) {
        if (words(child.textContent)) lines.push(words(child.textContent));
        continue;
      }
      if (child.nodeType !== 1 || child.tagName === "SCRIPT" || child.tagName === "STYLE" || !seen(child)) continue;
      const tag = child.tagName;
      if (tag === "SELECT") {
        const options = [...child.options].map((o) => words(o.textContent));
        const chosen = child.selectedOptions.length ? words(child.selectedOptions[0].textContent) : "";
        add(child, "list", `list "${chosen}" of: ${options.join(" | ")}`, options);
      } else if (tag === "TEXTAREA" || tag === "INPUT") {
        const kind = tag === "INPUT" ? child.type : "text";
        if (["checkbox", "radio"].includes(kind)) {
          add(child, "box", `${kind}, ${child.checked ? "on" : "off"}`, []);
        } else if (["submit", "button", "reset"].includes(kind)) {
          add(child, "button", `button "${child.value}"`, []);
        } else {
          add(child, "field", `field "${child.value || ""}"${child.placeholder ? " (" + child.placeholder + ")" : ""}`, []);
        }
      } else if (tag === "BUTTON" || tag === "A" || !child.children.length) {
        if (tag !== "BR" && tag !== "HR") {
          const inner = words(child.textContent);
          add(child, "other", tag === "BUTTON" || tag === "A" ? `${tag === "A" ? "link" : "button"} "${inner}"` : about(child), []);
        }
      } else {
        walk(child);
      }
    }
  };
  walk(document.getElementById("area") || document.body);
  return [core.getUtterance(), lines, elements];
}"""
"""() -> [the question, lines of what can be seen, [number, what, options] of what lines name by number]."""
