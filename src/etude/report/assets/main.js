// What is on screen follows from the address, so every view can be linked to and gone back from.

const POLL = 2000; // milliseconds between looks at a run that may still be training
const state = { view: "", run: "", episode: "", task: "" };
let body = null; // the view on screen
let source = null; // the run it shows

function address(change) {
  const wanted = { ...state, ...change };
  const kept = Object.entries(wanted).filter(([, value]) => value);
  return "#" + new URLSearchParams(kept);
}

function goTo(change) {
  location.hash = address(change);
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(state)) state[name] = given.get(name) || "";
  if (CONTENT.kind === "comparison") {
    state.view = state.view || "comparison";
    if (state.view !== "comparison" && !state.run) state.run = CONTENT.results.arms.flatMap((arm) => arm.runs || [])[0] || "";
  } else state.view = state.view || "curves";
}

function topBar(content) {
  const views = [["curves", "Curves"], ["episodes", "Episodes"], ["settings", "Settings"]];
  if (wroteTasks(state.run)) views.push(["written", "Written tasks"]);
  if (CONTENT.kind === "comparison") views.unshift(["comparison", "Comparison"]);
  const tabs = el("nav", { class: "tabs", "aria-label": "views" });
  if (CONTENT.kind !== "home")
    for (const [view, name] of views)
      tabs.append(el("a", { href: address({ view, episode: "", task: "" }), "aria-current": view === state.view ? "page" : null, text: name }));
  const home = CONTENT.kind === "home" || location.protocol === "file:" ? el("span", { class: "brand", text: "etude" })
    : el("a", { class: "brand", href: "/", text: "etude" });
  const tools = el("div", { class: "tools" },
    el("button", { type: "button", class: "plain", text: "?", title: "keys", "aria-label": "keyboard help", onclick: help }),
    el("button", { type: "button", class: "plain", text: "◐", title: "dark or light (t)", "aria-label": "switch between dark and light", onclick: theme }));
  const picker = CONTENT.kind === "comparison" && state.view !== "comparison"
    ? runPicker(CONTENT.results.arms, state.run, (run) => goTo({ run, episode: "", task: "" })) : null;
  const live = source && source.live ? el("span", { class: "live", title: "read from disk every two seconds", text: "● live" }) : null;
  document.getElementById("top").replaceChildren(
    el("div", { class: "bar" }, home, el("h1", { text: CONTENT.name }), live, tools), el("div", { class: "bar" }, tabs, picker));
}

// The views that list things of which one is open.
const LISTS = {
  episodes: () => episodesView(source, state.episode, (episode) => goTo({ episode })),
  written: () => writtenView(source, state.task, (task) => goTo({ task })),
};

async function show() {
  const before = { ...state };
  readAddress();
  const main = document.getElementById("main");
  const same = body && before.view === state.view && before.run === state.run;
  if (same && body.open) return body.open(state.view === "written" ? state.task : state.episode);
  if (body && body.leave) body.leave();
  body = source = null;
  try {
    if (CONTENT.kind === "home") {
      topBar();
      body = homeView(await get("list", {}));
    } else if (state.view === "comparison" && CONTENT.kind === "comparison") {
      topBar();
      body = comparisonView(CONTENT.results);
    } else {
      source = runSource(state.run);
      topBar();
      if (!source) throw new Error(`The run '${state.run}' was not found beside this comparison.`);
      const opened = { ...state };
      const content = LISTS[state.view] ? null : await source.load();
      if (opened.view !== state.view || opened.run !== state.run) return;
      body = LISTS[state.view] ? LISTS[state.view]() : runView(content, state.view, source);
    }
  } catch (error) {
    body = el("p", { class: "empty", text: error.message });
  }
  main.replaceChildren(body);
  scrollTo(0, 0);
}

async function poll() {
  if (document.hidden || !body) return;
  try {
    if (CONTENT.kind === "home") {
      const fresh = homeView(await get("list", {}));
      if (fresh.textContent !== body.textContent) body.replaceWith((body = fresh));
    } else if (source && source.live && body.refresh) {
      const mine = body;
      await source.load();
      const fresh = await source.changes();
      if (fresh && mine === body) body.refresh(fresh);
    }
  } catch (error) {
    const sign = document.querySelector(".live");
    if (sign) sign.textContent = "○ server gone";
  }
}

function theme() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  const place = scrollY;
  const open = body;
  if (open && open.leave) {
    body = null;
    show().then(() => scrollTo(0, place));
  } else redrawAll();
}

const KEYS = [
  ["1 2 3 4", "the views, from left to right"], ["j k", "next and previous in a list"], ["c", "next colouring of tokens"],
  ["← →", "next and previous token, in a conversation"], ["/", "find in a list"], ["Escape", "back to the list"], ["t", "dark or light"], ["?", "this help"],
];

function help() {
  const box = el("dialog", { class: "keys" }, el("h2", { text: "Keys" }),
    el("dl", {}, KEYS.flatMap(([key, what]) => [el("dt", {}, el("kbd", { text: key })), el("dd", { text: what })])),
    el("form", { method: "dialog" }, el("button", { type: "submit", text: "Close" })));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (state.episode || state.task) goTo({ episode: "", task: "" });
    return;
  }
  if (typing) return;
  const tab = document.querySelectorAll(".tabs a")[Number(event.key) - 1];
  const actions = {
    j: () => body.move && body.move(1), k: () => body.move && body.move(-1), c: () => body.nextMode && body.nextMode(),
    "/": () => body.focusFilter && body.focusFilter(), t: theme, "?": help,
  };
  const act = tab ? () => tab.click() : actions[event.key];
  if (!act || !body) return;
  event.preventDefault();
  act();
}

addEventListener("hashchange", show);
addEventListener("keydown", key);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
if (location.protocol !== "file:") setInterval(poll, POLL);
show();
