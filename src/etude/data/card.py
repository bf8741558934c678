"""The card of a data set: what it was made of, by whom, what was thrown away, and what its sources allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from etude.data.items import Item

UNSTATED = "not stated"


def facts(
    items: Sequence[Item], counts: Sequence[tuple[str, int, int]], about: Mapping[str, Any]
) -> dict[str, Any]:
    """card.json. `about`: recipe, settings, sources with their licences, writers, held-out set, seed."""
    words = np.array([len(i.text.split()) for i in items] or [0])
    return {
        **about,
        "items": len(items),
        "questions": len({i.prompt for i in items}),
        "kinds": dict(Counter(str(i.row.get("kind", "")) for i in items)),
        "written_by": dict(Counter(str(i.came.get("writer", "its source")) for i in items)),
        "words": {"median": float(np.median(words)), "longest": int(words.max())},
        "filters": [{"kept": says, "of": before, "left": after} for says, before, after in counts],
    }


def page(card: Mapping[str, Any]) -> str:
    """card.md."""
    recipe = card.get("recipe", "")
    lines = [f"# {card['name']}", ""]
    if recipe:
        paper = card.get("paper")
        said = f" ([{paper['title']}]({paper['url']}))" if paper and paper["url"] else ""
        lines += [f"Made by `etude data {card['verb']} {recipe}`{said}.", ""]
    rows = [
        ("items", card["items"]),
        ("questions", card["questions"]),
        ("kinds", _counted(card["kinds"])),
        ("words of an answer", f"median {card['words']['median']:g}, longest {card['words']['longest']}"),
        ("written by", _counted(card["written_by"])),
        ("settings", ", ".join(f"{k} = {v}" for k, v in card.get("settings", {}).items()) or "none"),
        ("seed", card.get("seed", "")),
        ("held out against", card.get("against") or "nothing was named"),
        ("made with", f"etude {card.get('version', '')}, commit {card.get('commit', '')[:12]}"),
    ]
    lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows), ""]
    lines += ["## Sources", "", "| source | licence, as it is stated there |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(licence)} |" for name, licence in card["sources"].items()]
    lines += ["", "## Filters, in their order", "", "| what was kept | of | left |", "|---|---|---|"]
    lines += [f"| {_cell(f['kept'])} | {f['of']} | {f['left']} |" for f in card["filters"]]
    if card.get("departures"):
        lines += ["", "## Departures from the paper", "", *(f"- {d}" for d in card["departures"])]
    lines += ["", "Every item says in its column `provenance` where it comes from.", ""]
    return "\n".join(lines)


def _counted(found: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name or 'unnamed'}: {n}" for name, n in sorted(found.items(), key=lambda x: -x[1])[:12]
    )


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
