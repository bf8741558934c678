"""docs/claims.md: which claims reproduce, which pay for themselves, and which could not be tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from etude.claims import AXES
from etude.claims.settings import GATES, Claim, load
from etude.claims.verdict import LABELS, MEANING, NO_TEST
from etude.docs.claims import UNITS, Results, sentence, visible, why
from etude.docs.papers import table_row

PLACES = {"lab": "the laboratory", "lab-smollm2": "SmolLM2-135M, taught the laboratory's protocols"}
COLOURS = dict(zip(LABELS, ("#1a7f4b", "#7aa874", "#6b7280", "#b3261e", "#c08a2d", "#c9ced6"), strict=True))
Found = Mapping[str, Mapping[str, Any]]

HEAD = """\
# Which published claims show here, and which pay for themselves

Made by `python -m etude.docs.method_docs` from recorded results alone; settings stand in `src/etude/claims/claims.toml` and are
fixed before anything is run. Every claim is a method against the baseline of its paper: the same problems, seeds and number
of trained episodes. Two questions are answered from the same runs:

- **reproduces?** compares both after the same number of updates, as papers do;
- **pays for itself?** compares both after the same FLOPs, read from the curves of the same runs (the baseline is trained on, for
  twice as many updates or more, so that it meets the FLOPs of a dear method; one that is dearer still is read where the baseline ends).

The figures are the last evaluation's, never the best one's, on held-out problems, paired by problem and by seed. Where the
first seeds do not resolve one of the questions, more are run, as many as were fixed beforehand. One claim in twenty-five holds by chance alone
at the very most (one in forty at a first look of 95 %, and the second look). *Visible* is the smallest true effect that would have been seen with a probability of 80 %. What does not show for
a small model may show for a large one.
"""


def claims_page(results: Results, planned: Sequence[Claim] | None = None) -> str:
    """The whole page. `planned`: the claims of the settings."""
    planned = load() if planned is None else planned
    lines = [HEAD, *_definitions()]
    for on, place in PLACES.items():
        mine = {name: both[on] for name, both in results.items() if on in both}
        lines += [f"## On {place}", "", *_bed(on, mine, [c for c in planned if c.on == on])]
    return "\n".join(lines)


def _definitions() -> list[str]:
    rows = [table_row(("label", "meaning")), table_row(["---"] * 2)]
    rows += [table_row((name, MEANING[name])) for name in LABELS]
    gates = [f"*{name}*: {what}." for name, what in GATES.items()]
    return [
        *rows,
        "",
        "Gates stand before every verdict; where one is shut the row says *no test* and which, with the figure. "
        + " ".join(gates),
        "*Manipulation*: what the method's own file demands to have happened (`etude recipes NAME`).",
        "",
    ]


def _bed(on: str, mine: Found, planned: Sequence[Claim]) -> list[str]:
    if not mine:
        return ["Not yet run on this bed.", ""]
    lines = [*_summary(mine), ""]
    if any(_drawn(r) for r in mine.values()):
        lines += [f"![effects and 95 % intervals on both questions, of each method](claims-{on}.svg)", ""]
    tested = {n: r for n, r in mine.items() if r["state"] == "run" and not _shut(r)}
    if tested:
        head = (
            "recipe",
            "claim",
            "reproduces?",
            "pays for itself?",
            "least",
            "visible",
            "against",
            "seeds",
            "command",
        )
        lines += [
            "### Tested",
            "",
            _measured(tested, planned),
            "",
            table_row(head),
            table_row(["---"] * len(head)),
        ]
        lines += [table_row(_row(name, r)) for name, r in tested.items()]
        lines.append("")
    untested = {n: r for n, r in mine.items() if n not in tested}
    if untested:
        why_head = ("recipe", "claim", "why there is no test", "command")
        lines += ["### Not tested, and why", "", table_row(why_head), table_row(["---"] * len(why_head))]
        lines += [table_row((n, r["says"], why(r), _command(r))) for n, r in untested.items()]
        lines.append("")
    if missing := [c.recipe for c in planned if c.recipe not in mine]:
        lines += [f"Not yet run on this bed: {', '.join(missing)}.", ""]
    return lines


def _measured(tested: Found, planned: Sequence[Claim]) -> str:
    """`Held-out problems x attempts: 400 x 4; updates: 24.`"""
    asked = dict.fromkeys(f"{r['problems']} x {r['samples']}" for r in tested.values())
    updates = dict.fromkeys(str(c.updates) for c in planned if c.recipe in tested)
    return f"Held-out problems x attempts: {', '.join(asked)}; updates: {', '.join(updates)}."


def _row(name: str, r: Mapping[str, Any]) -> tuple[str, ...]:
    verdicts = (sentence(r, "updates"), sentence(r, "flops"))
    return (
        name,
        r["says"],
        *verdicts,
        f"{r['least']:g}",
        visible(r),
        f"`{r['base']}`",
        f"{r['seeds']} of {r['more']}" if "more" in r else str(r["seeds"]),
        _command(r),
    )


def _command(r: Mapping[str, Any]) -> str:
    return f"`{r['command']}`" if "command" in r else ""


def _shut(r: Mapping[str, Any]) -> bool:
    return all(r[axis]["label"] == NO_TEST for axis in AXES)


def _summary(mine: Found) -> list[str]:
    """What reproduces, what pays for itself, what could not be tested: a line each."""

    def names(axis: str, label: str) -> list[str]:
        return [n for n, r in mine.items() if r["state"] == "run" and r[axis]["label"] == label]

    lines = []
    for axis, question in AXES.items():
        parts = [
            f"{label}: {', '.join(found)}"
            for label in LABELS
            if label != NO_TEST and (found := names(axis, label))
        ]
        lines.append(f"- **{question}** {'; '.join(parts) or 'nothing was tested'}.")
    silent = [n for n, r in mine.items() if r["state"] != "run" or _shut(r)]
    lines.append(f"- **Could not be tested:** {', '.join(silent) or 'none'}.")
    return lines


def _drawn(r: Mapping[str, Any]) -> bool:
    return r["state"] == "run" and r["metric"] not in UNITS and any("effect" in r[a] for a in AXES)


def picture(mine: Found) -> str:
    """An SVG: per recipe the effect at equal updates (dot) and at equal FLOPs (ring) with their intervals, in points,
    turned so that the claimed side is the right one; largest first."""
    drawn = []
    for name, r in mine.items():
        if _drawn(r):
            sign = 1 if r["better"] == "higher" else -1
            drawn.append((name, {a: _turned(r[a], sign) for a in AXES if "effect" in r[a]}))
    drawn.sort(key=lambda item: -max(v["effect"] for v in item[1].values()))
    ends = [v for _, both in drawn for one in both.values() for v in (one["low"], one["high"])] + [0.0]
    low, high = min(ends), max(ends)
    left, width, step, top = 170, 520, 26, 56
    height = top + step * len(drawn) + 20

    def x(value: float) -> float:
        return left + width * (value - low) / ((high - low) or 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{left + width + 30}" height="{height}" fill="#ffffff"/>',
        '<text x="14" y="18" fill="#374151">points and 95 % interval; dot: equal updates, ring: equal FLOPs</text>',
        '<text x="14" y="38" fill="#374151">'
        + ", ".join(f'<tspan fill="{COLOURS[s]}">{s}</tspan>' for s in LABELS if s != NO_TEST)
        + "</text>",
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top - 8}" y2="{height - 16}" stroke="#9ca3af"/>',
    ]
    for i, (name, both) in enumerate(drawn):
        y = top + step * i + 6
        parts.append(
            f'<text x="{left - 10}" y="{y + 8}" text-anchor="end" fill="#111827">{escape(name)}</text>'
        )
        for axis, one in both.items():
            here, colour = y + (0 if axis == "updates" else 9), COLOURS[one["label"]]
            fill = colour if axis == "updates" else "#ffffff"
            parts += [
                f'<line x1="{x(one["low"]):.1f}" x2="{x(one["high"]):.1f}" y1="{here}" y2="{here}" stroke="{colour}" stroke-width="2"/>',
                f'<circle cx="{x(one["effect"]):.1f}" cy="{here}" r="3.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>',
            ]
    for value in (low, high):
        parts.append(
            f'<text x="{x(value):.1f}" y="{height - 4}" text-anchor="middle" fill="#374151">{value:+.1f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _turned(one: Mapping[str, Any], sign: int) -> dict[str, Any]:
    low, high = sorted((sign * one["low"], sign * one["high"]))
    return {"effect": sign * one["effect"], "low": low, "high": high, "label": one["label"]}


def pictures(results: Results) -> dict[str, str]:
    """{file name: SVG} of every bed with a result in points."""
    found = {}
    for on in PLACES:
        mine = {name: both[on] for name, both in results.items() if on in both}
        if any(_drawn(r) for r in mine.values()):
            found[f"claims-{on}.svg"] = picture(mine)
    return found
