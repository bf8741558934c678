// Where facts come from: the block inside this file, or the server that `etude view` started.

const CONTENT = JSON.parse(document.getElementById("data").textContent);

async function get(what, query) {
  const answer = await fetch(`/api/${what}?${new URLSearchParams(query)}`);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// A run whose facts all stand in this file.
function embedded(content) {
  const rows = content.episodes.rows;
  const byId = new Map(rows.map((row) => [row.id, row]));
  return {
    live: false,
    async load() { return content; },
    async changes() { return null; },
    async episodes() {
      const left = content.episodes.total - rows.length;
      const note = left > 0
        ? `This file holds ${rows.length} of about ${content.episodes.total} episodes, whole groups spread over the run; ` +
          "`etude view` shows all of them."
        : "";
      return { rows, note };
    },
    async written() { return content.written || { rows: [], total: 0 }; },
    async group(id) {
      const row = byId.get(id);
      if (!row) throw new Error(`Episode ${id} is not in this file; \`etude view\` shows every episode.`);
      return row.group < 0 ? [row] : rows.filter((other) => other.step === row.step && other.group === row.group);
    },
  };
}

// A run that a server reads for us, perhaps while it is being written.
function served(name) {
  let content = null;
  let rows = [];
  let last = -1;
  const join = (fresh) => {
    const old = content ? content.metrics : {};
    const before = content ? content.lines : 0;
    const added = fresh.lines - before;
    const metrics = {};
    for (const key of new Set([...Object.keys(old), ...Object.keys(fresh.metrics)]))
      metrics[key] = (old[key] || Array(before).fill(null)).concat(fresh.metrics[key] || Array(added).fill(null));
    content = { ...fresh, metrics };
    return content;
  };
  return {
    live: true,
    async load() { return content || join(await get("run", { run: name })); },
    // The run as it is now, or null when nothing has changed. A run that was cut back is read anew.
    async changes() {
      const before = content;
      const fresh = await get("run", { run: name, after: before.lines });
      if (fresh.lines < before.lines) {
        content = null;
        rows = [];
        last = -1;
        return join(await get("run", { run: name }));
      }
      const same = fresh.lines === before.lines && fresh.steps === before.steps &&
        JSON.stringify([fresh.evals, fresh.findings]) === JSON.stringify([before.evals, before.findings]);
      return same ? null : join(fresh);
    },
    async episodes() {
      let note = "";
      for (let more = true; more; ) {
        const page = await get("episodes", { run: name, after: last });
        rows = rows.concat(page.rows);
        last = page.last;
        more = page.more;
        if (!page.whole) note = "The run is long: the list holds evenly spread steps.";
      }
      return { rows, note };
    },
    async written() { return get("written", { run: name }); },
    async group(id) { return get("group", { run: name, id }); },
  };
}

const runs = new Map();

// Whether a model wrote tasks in the run called `name`: then there is a view of them.
function wroteTasks(name) {
  if (CONTENT.kind === "run") return Boolean(CONTENT.writes || CONTENT.written);
  return Boolean(CONTENT.runs ? (CONTENT.runs[name] || {}).written : (CONTENT.writes || []).includes(name));
}

// The run called `name` in this page: the page's own, or one of a comparison's.
function runSource(name) {
  if (!runs.has(name)) {
    if (CONTENT.kind === "run") runs.set(name, CONTENT.run === undefined ? embedded(CONTENT) : served(CONTENT.run));
    else if (CONTENT.runs) runs.set(name, CONTENT.runs[name] ? embedded(CONTENT.runs[name]) : null);
    else runs.set(name, served(CONTENT.prefix + name));
  }
  return runs.get(name);
}
