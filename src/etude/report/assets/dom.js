// Building blocks. Text enters the page here and only as textContent.

function el(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = visible(value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "text") node.textContent = visible(value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const CONTROL_NAMES = { 0: "NUL", 7: "BEL", 8: "BS", 12: "FF", 13: "CR", 27: "ESC", 127: "DEL" };

// Control characters as symbols, so that none can move, hide or reorder what is read. Line breaks and tabs stay.
function visible(value) {
  return String(value).replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu,
    (c) => {
      const code = c.codePointAt(0);
      if (CONTROL_NAMES[code]) return `\u27e8${CONTROL_NAMES[code]}\u27e9`;
      return "\u27e8" + code.toString(16).toUpperCase().padStart(2, "0") + "\u27e9";
    },
  );
}

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e5) return String(value);
  if (size >= 1e15) return value.toExponential(1).replace("e+", "e");
  for (const [unit, scale] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e4]])
    if (size >= scale) return trim(value / (unit === "k" ? 1e3 : scale), 3) + unit;
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return trim(value, digits);
}

function trim(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

function percent(value, places = 1) {
  return value === null || value === undefined ? "–" : (100 * value).toFixed(places) + "%";
}

function interval(row) {
  return `${percent(row.mean)} [${percent(row.low)}, ${percent(row.high)}]`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

// Colours of series: Okabe and Ito's, told apart by every common kind of colour blindness, one set per theme.
const PALETTES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#b2518d", "#a87400", "#3795cc", "#4d4d4d", "#7a6a00"],
  dark: ["#56b4e9", "#f08a3c", "#2fc79a", "#dd8fbc", "#e6b422", "#8ccbf0", "#bdbdbd", "#f0e442"],
};

function dark() {
  const forced = document.documentElement.dataset.theme;
  return forced ? forced === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function colour(index) {
  const palette = PALETTES[dark() ? "dark" : "light"];
  return palette[index % palette.length];
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function fade(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

// A row of buttons of which one is on.
function choice(label, options, current, pick) {
  const group = el("div", { class: "choice", role: "group", "aria-label": label });
  for (const [value, text] of options)
    group.append(
      el("button", {
        type: "button", text, "aria-pressed": String(value === current), "data-value": value,
        onclick: () => {
          for (const other of group.children) other.setAttribute("aria-pressed", String(other.dataset.value === value));
          pick(value);
        },
      }),
    );
  return group;
}

function section(title, help, ...children) {
  return el("section", {}, el("h2", { text: title }), help && el("p", { class: "help", text: help }), ...children);
}

// Nested settings as a two-column table.
function facts(value) {
  const body = el("tbody");
  const walk = (prefix, item) => {
    if (item !== null && typeof item === "object" && !Array.isArray(item)) {
      for (const [name, inner] of Object.entries(item)) walk(prefix ? `${prefix}.${name}` : name, inner);
    } else {
      const text = item === null ? "–" : typeof item === "string" ? item : JSON.stringify(item);
      body.append(el("tr", {}, el("th", { scope: "row", text: prefix }), el("td", { text })));
    }
  };
  walk("", value || {});
  return el("div", { class: "scroll" }, el("table", { class: "facts" }, body));
}
