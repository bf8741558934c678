"""Pages of the documentation that are made from the recipes and their results:

python -m etude.docs.method_docs [FOLDER]        writes them (default: docs)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from etude.docs.claims import UNITS, read, sentence
from etude.docs.method_page import HEADER, facts, rows
from etude.docs.papers import papers_page, table_row
from etude.docs.renamed_page import renamed_page
from etude.evaluate.transitions import WAYS
from etude.methods import outside

HELD, NOT_HELD, OPEN = "held", "not held", "not resolved"
COLOURS = {HELD: "#1a7f4b", NOT_HELD: "#b3261e", OPEN: "#6b7280"}
PLACES = {"lab": "the laboratory", "smollm2": "SmolLM2-135M"}
LEARNED = Path(__file__).with_name("learned.md")
Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


def recipes_page() -> str:
    """All recipes of the package, as `etude recipes` prints them."""
    found = [f for f in facts() if f["topic"] != outside.TOPIC]
    cells = [table_row(HEADER), table_row(["---"] * len(HEADER)), *(table_row(row) for row in rows(found))]
    return "\n".join(
        [
            "# Recipes",
            "",
            "Made by `python -m etude.docs.method_docs` from the recipes themselves. `etude recipes NAME` prints one in full.",
            "`year`: of [the paper](papers.md). `confidence`: what the description was built from. `tests`: numbers worked by hand",
            "and reductions, beside the laws that run over every recipe. `claim`: see [claims](claims.md).",
            "",
            *cells,
            "",
        ]
    )


def claims_page(results: Results) -> str:
    """What was found, in words and as tables."""
    lines = [
        "# Which claims hold at small scale",
        "",
        "Made by `python -m etude.docs.method_docs` from results alone. Every claim is a method against its baseline at equal",
        "compute, on the same problems, over several seeds; settings stand in `bench/claims.toml` and were committed before",
        "the runs. *Held*: the 95 % interval excludes zero on the claimed side and the effect is as large as was asked for.",
        "*Not held*: an effect of that size is excluded. At 95 % each, one claim in forty holds by chance alone.",
        "A claim that does not hold for a model of 0.7 million weights may hold for a large one.",
        "",
        learned(results),
    ]
    claimed = [f for f in facts() if f["claimed"] and f["topic"] != outside.TOPIC]
    for on, place in PLACES.items():
        mine = {name: both[on] for name, both in results.items() if on in both}
        lines += [f"## On {place}", ""]
        if not mine:
            lines += ["Not run.", ""]
            continue
        lines += [_summary(mine), ""]
        if any(_in_points(r) for r in mine.values()):
            lines += [f"![effect and 95 % interval of each method on {place}](claims-{on}.svg)", ""]
        lines += [
            table_row(("recipe", "claim tested", "outcome", "against", "seeds")),
            table_row(["---"] * 5),
        ]
        lines += [
            table_row(
                (name, r["says"], sentence(dict(r)), r.get("base", r.get("why", "")), str(r.get("seeds", "")))
            )
            for name, r in mine.items()
        ]
        lines.append("")
    lines += twice_section(results)
    silent = [f["name"] for f in claimed if f["name"] not in results]
    if silent:
        lines += ["## Not run", "", ", ".join(silent), ""]
    return "\n".join(lines)


def learned(results: Results) -> str:
    """The prose of learned.md, where `{recipe}` or `{recipe on place}` stands for an effect and its interval."""

    def effect(named: re.Match[str]) -> str:
        found = results.get(named[1], {}).get(named[2] or "lab", {})
        if found.get("effect") is None:
            return "(not run)"
        low, high = found["interval"]
        return f"{found['effect']:+.1f} [{low:+.1f}, {high:+.1f}]"

    return re.sub(r"\{(\w+)(?: on (\w+))?\}", effect, LEARNED.read_text(encoding="utf-8"))


def twice_section(results: Results) -> list[str]:
    """What second attempts change, of every claim about a method that tries again."""
    head = ("recipe", "on", "trained with", "first", "last", "gain", "right -> right", "right -> wrong")
    more = ("wrong -> right", "wrong -> wrong", "tokens", "problems x attempts x seeds")
    table = [
        (
            name,
            on,
            r[side],
            *_twice(measured),
            f"{measured['problems']} x {measured['samples']} x {r['seeds']}",
        )
        for name, both in results.items()
        for on, r in both.items()
        for side, measured in r.get("twice", {}).items()
    ]
    if not table:
        return []
    return [
        "## First and second attempts",
        "",
        "Finished policies on held-out problems, in percent. Both arms of a claim are examined by the rollout of its method,",
        "with an empty memory; the tokens are those sampled for an episode with all of its parts. The gain has a 95 % interval",
        "over seeds and problems.",
        "",
        table_row(head + more),
        table_row(["---"] * len(head + more)),
        *map(table_row, table),
        "",
    ]


def _twice(found: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = found["interval"]
    ways = (f"{found[way]:.1f}" for way in WAYS)
    gain = f"{found['gain']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return (f"{found['first']:.1f}", f"{found['second']:.1f}", gain, *ways, f"{found['tokens']:.0f}")


def picture(results: Mapping[str, Mapping[str, Any]]) -> str:
    """An SVG: effect and interval in points per recipe, one line each, largest effect first."""
    drawn = sorted(
        ((name, r) for name, r in results.items() if _in_points(r)),
        key=lambda item: -item[1]["effect"],
    )
    ends = [v for _, r in drawn for v in r["interval"]] + [0.0]
    low, high = min(ends), max(ends)
    left, width, step, top = 170, 520, 22, 34
    height = top + step * len(drawn) + 20

    def x(value: float) -> float:
        return left + width * (value - low) / ((high - low) or 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{left + width + 30}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="16" fill="#374151">effect in points and 95 % interval: '
        + ", ".join(f'<tspan fill="{COLOURS[s]}">{s}</tspan>' for s in COLOURS)
        + "</text>",
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top - 8}" y2="{height - 16}" stroke="#9ca3af"/>',
    ]
    for i, (name, r) in enumerate(drawn):
        y, colour = top + step * i + 8, COLOURS[r["state"]]
        a, b = (x(v) for v in r["interval"])
        parts += [
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end" fill="#111827">{escape(name)}</text>',
            f'<line x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x(r["effect"]):.1f}" cy="{y}" r="4" fill="{colour}"/>',
        ]
    for value in (low, high):
        parts.append(
            f'<text x="{x(value):.1f}" y="{height - 4}" text-anchor="middle" fill="#374151">{value:+.1f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def pages(results: Results | None = None) -> dict[str, str]:
    """{file name: content} of all that is made."""
    results = read() if results is None else results
    made = {
        "recipes.md": recipes_page(),
        "papers.md": papers_page(),
        "renamed-settings.md": renamed_page(),
        "claims.md": claims_page(results),
    }
    for on in PLACES:
        mine = {name: both[on] for name, both in results.items() if on in both}
        if any(_in_points(r) for r in mine.values()):
            made[f"claims-{on}.svg"] = picture(mine)
    return made


def _in_points(r: Mapping[str, Any]) -> bool:
    return r.get("effect") is not None and r["metric"] not in UNITS


def _summary(mine: Mapping[str, Mapping[str, Any]]) -> str:
    def names(state: str) -> str:
        found = [name for name, r in mine.items() if r["state"] == state]
        return f"{len(found)} {state}" + (f" ({', '.join(found)})" if found else "")

    states = [HELD, NOT_HELD, OPEN, *sorted({r["state"] for r in mine.values()} - {HELD, NOT_HELD, OPEN})]
    return "; ".join(names(state) for state in states) + "."


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
