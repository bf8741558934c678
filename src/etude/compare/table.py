"""A comparison as one screen of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def screen(results: Mapping[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        ("arm", "accuracy", "95 %", "vs " + results["base"], "95 %", "p (Holm)", "best", "tokens", "time")
    ]
    rows += [_row(arm, results["base"]) for arm in results["arms"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    shared = [a["name"] for a in results["arms"] if not a["alone"]]
    facts = (
        f"{results['problems']} held-out problems x {results['samples']} attempts, seeds "
        f"{', '.join(map(str, results['seeds']))}, {results['budget']} a run; accuracy at the end of each run"
    )
    notes = [f"invalid: {a['name']}: {a['cause']}" for a in results["arms"] if not a["valid"]]
    for arm, rates in (results.get("tuning") or {}).items():
        tried = ", ".join(f"{float(rate):.1e}: {100 * accuracy:.1f} %" for rate, accuracy in rates.items())
        notes.append(f"{arm} found its learning rate within its budget, on tuning problems: {tried}")
    if shared:
        notes.append(
            f"{', '.join(shared)} shared the machine with other runs: their times are not comparable"
        )
    return "\n".join([*lines, "", facts, *notes, results["verdict"]])


def _row(arm: Mapping[str, Any], base: str) -> tuple[str, ...]:
    if not arm["valid"]:
        return (arm["name"], "invalid", *[""] * 5, f"{arm['tokens']:.3g}", "")
    final, d = arm["final"], arm["difference"]
    return (
        arm["name"],
        f"{100 * final['mean']:.1f}",
        f"{100 * final['low']:.1f}-{100 * final['high']:.1f}",
        "" if d is None else f"{d['points']:+.1f}",
        "" if d is None else f"{d['low']:+.1f} to {d['high']:+.1f}",
        "" if d is None else f"{d['p_holm']:.3g}",
        f"{arm['best_probability']:.0%}",
        f"{arm['tokens']:.3g}",
        f"{arm['seconds'] / 60:.1f} min" + ("" if arm["alone"] else " *"),
    )
