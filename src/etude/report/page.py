"""The page of a run, of a comparison or of a study, as one HTML file that needs nothing else: no network, no server.

Everything that a model, a checker or a user wrote travels as JSON inside a data block and reaches the screen
through `textContent` alone; a content security policy admits only this file's own script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import read_json, write_atomically
from etude.report import data, json_files, written
from etude.report.run import RunDirectory, is_run
from etude.report.study import study_page

STYLES = ("uplot.min.css", "style.css", "episodes.css")
SCRIPTS = (
    "uplot.iife.min.js",
    "dom.js",
    "store.js",
    "charts.js",
    "intervals.js",
    "curves.js",
    "run.js",
    "tree.js",
    "episode.js",
    "episodes.js",
    "written.js",
    "compare.js",
    "home.js",
    "main.js",
)
EPISODE_BYTES = 8_000_000  # of episodes in a page that stands alone
RESULT_NEEDS = ("arms", "problems", "samples", "seeds", "card", "verdict")


def write_report(path: str | Path) -> Path:
    """Writes `report.html` beside the facts of the run or comparison at `path` and returns where it lies.
    Raises UserError when `path` is neither, or when a result lacks its card."""
    path = Path(path)
    if is_run(path):
        content = run_data(RunDirectory.open(path), EPISODE_BYTES)
    elif (path / "results.json").is_file():
        found = read_json(path / "results.json")
        if isinstance(found, dict) and found.get("kind") == "study":
            write_atomically(path / "report.html", study_page(found, _asset("style.css")))
            return path / "report.html"
        content = comparison_data(path)
    else:
        raise UserError(f"'{path}' is neither a run nor a comparison; name a directory that etude wrote")
    target = path / "report.html"
    write_atomically(target, build(content, live=False))
    return target


def run_data(run: RunDirectory, episode_bytes: int) -> dict[str, Any]:
    """All that the page of one run shows, with about `episode_bytes` of its episodes."""
    known = run.written()
    shown = {"rows": written.within(known, episode_bytes // 4), "total": len(known)}
    return {
        "kind": "run",
        **data.summary(run),
        "episodes": data.sample(run, episode_bytes),
        **({"written": shown} if known else {}),
    }


def read_results(path: Path) -> dict[str, Any]:
    """The results of the comparison at `path`. Raises UserError when they lack what makes them quotable."""
    results = read_json(path / "results.json")
    lacks = [name for name in RESULT_NEEDS if not isinstance(results, dict) or name not in results]
    if lacks:
        raise UserError(
            f"'{path / 'results.json'}' is not a complete comparison: it lacks {', '.join(lacks)}"
        )
    arms = results["arms"]
    if not isinstance(arms, list) or not all(
        isinstance(arm, dict) and isinstance(arm.get("runs", []), list) for arm in arms
    ):
        raise UserError(f"'{path / 'results.json'}' is damaged: its arms are no list of arms")
    return dict(results)


def comparison_data(path: Path) -> dict[str, Any]:
    """All that the page of a comparison shows: its results, and its runs with some of their episodes."""
    results = read_results(path)
    names = [name for arm in results["arms"] for name in arm.get("runs") or []]
    there = [name for name in names if is_run(path / name)]
    share = EPISODE_BYTES // max(1, len(there))
    runs = {name: run_data(RunDirectory.open(path / name), share) for name in there}
    return {"kind": "comparison", "name": path.resolve().name, "results": results, "runs": runs}


def build(content: Any, *, live: bool) -> str:
    """The page around `content`. A `live` page may talk to the server it came from, and to nothing else."""
    style = "\n".join(_asset(name) for name in STYLES)
    script = '(function () {\n"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();"
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "connect-src 'self'" if live else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    blocks = {
        "policy": html.escape(policy),
        "title": html.escape(str(content.get("name", "etude"))),
        "style": style,
        "data": _inert(content),
        "script": script,
    }
    return re.sub(
        r"\{\{(\w+)\}\}", lambda place: blocks[place[1]], _asset("page.html")
    )  # one pass: data stays data


def _asset(name: str) -> str:
    return (resources.files("etude.report") / "assets" / name).read_text("utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert(value: Any) -> str:
    """JSON in which no character can end the block it stands in."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):  # something that JSON has no word for
        return _inert(json_files.plain(value))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
