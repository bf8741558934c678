"""Does choosing what to practise next beat drawing evenly? Settings: the group "curricula" of bench/claims.toml.

    python bench/curricula.py [--parallel 2] [--draw]

Every arm against the base at equal compute: accuracy on all held-out problems and on the hardest level (`compare`'s
statistics, Holm over the arms), the area under the held-out curve, the share of groups without signal and the spread
between kinds (Welch's t over seeds). Runs are shared with bench/claims.py: started again it goes on. Writes
bench/results/curricula.json, the table of docs/curricula.md, docs/curricula.svg (effects) and docs/curriculum-paths.svg
(levels drawn over time).
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from claims import SETTINGS, Claim, by_problem, facts_of, load, play
from contestants import HERE, RESULTS, card, write_result
from picture import document, text
from scipy import stats

DOCS = HERE.parent / "docs"
GROUP = "curricula"
BEGIN, END = "<!-- curricula -->", "<!-- /curricula -->"  # of docs/curricula.md
LEVELS = ("#cfe3f5", "#93c1e8", "#4f97d1", "#1f6aa8", "#0b3d6b")  # easy to hard
Facts = Sequence[Mapping[str, Any]]


def claims() -> dict[str, Claim]:
    """{arm: claim}: every claim on the common mixture, and the arms that stand beside them without a claim."""
    of = {c.recipe: c for c in load(only=GROUP) if not c.untested}
    group = tomllib.loads(SETTINGS.read_text())[GROUP]
    of = {name: c for name, c in of.items() if (c.base, c.tasks) == (group["base"], group["tasks"])}
    first = next(iter(of.values()))
    return {**{n: replace(first, recipe=n, arm=arm) for n, arm in group["beside"].items()}, **of}


def area(run: Mapping[str, Any]) -> float:
    """Mean held-out accuracy over the budget, in percent: the area under the curve by the trapezoid rule."""
    spent, found = np.array(run["curve"], dtype=float).T
    return float(100 * np.trapezoid(found, spent) / (spent[-1] - spent[0]))


def spread(run: Mapping[str, Any]) -> float:
    """Standard deviation of the kinds' accuracies, in points."""
    return float(100 * np.std(list(run["kinds"].values())))


SCALARS = {"area": area, "wasted": lambda run: float(run["wasted"]), "spread": spread}


def measured(arms: Mapping[str, Facts], base: str) -> dict[str, Any]:
    """{arm: {measure: {mean, effect, low, high, p}}}; effects against `base`, p after Holm where problems are paired."""
    from etude.compare.paired import compare

    out: dict[str, Any] = {name: {} for name in arms}
    for measure, rows in (("accuracy", "per_problem"), ("hardest", "hardest")):
        tables = {name: by_problem(rows)(runs, 1) for name, runs in arms.items()}
        for name, table in tables.items():
            out[name][measure] = {"mean": 100 * float(table.mean())}
        for d in compare(tables, base=base).differences:
            out[d.arm][measure] |= {"effect": d.effect, "low": d.low, "high": d.high, "p": d.adjusted}
    for measure, read in SCALARS.items():
        values = {name: [read(run) for run in runs] for name, runs in arms.items()}
        for name, mine in values.items():
            out[name][measure] = {"mean": float(np.mean(mine))}
            if name != base:
                test = stats.ttest_ind(mine, values[base], equal_var=False)
                interval = test.confidence_interval(0.95)
                out[name][measure] |= {
                    "effect": float(np.mean(mine) - np.mean(values[base])),
                    "low": float(interval.low),
                    "high": float(interval.high),
                }
    for name, runs in arms.items():
        out[name]["steps"] = float(np.mean([run["steps"] for run in runs]))
    return out


def shares(path: Sequence[Mapping[str, float]]) -> np.ndarray:
    """f64[steps, levels]: how likely each level was at each step, from the curriculum's own report {kind/level: p}."""
    arms = [name for name in path[0] if "/" in name]
    of = {name: float(name.rpartition("/")[2]) for name in arms}
    return np.array(
        [[sum(at[n] for n in arms if of[n] == v) for v in sorted(set(of.values()))] for at in path]
    )


def paths_picture(paths: Mapping[str, np.ndarray]) -> str:
    """Levels drawn over time, easy at the bottom: a panel for each curriculum."""
    wide, high, columns = 250, 150, 3
    parts = [
        text(
            14, 22, "share of each level over the run (first seed), easiest at the bottom", 14, weight="bold"
        )
    ]
    for i, colour in enumerate(LEVELS):
        parts.append(f'<rect x="{14 + 80 * i}" y="32" width="12" height="12" fill="{colour}"/>')
        parts.append(text(30 + 80 * i, 43, f"level {i}", 12))
    for i, (name, table) in enumerate(paths.items()):
        x0, y0 = 14 + (i % columns) * (wide + 16), 80 + (i // columns) * (high + 40)
        x = x0 + np.arange(len(table)) / max(1, len(table) - 1) * wide
        top = np.cumsum(table / table.sum(1, keepdims=True), 1)
        below = np.zeros(len(table))
        for level, colour in zip(top.T, LEVELS, strict=True):
            up = [f"{a:.1f},{y0 + high * (1 - b):.1f}" for a, b in zip(x, level, strict=True)]
            down = [f"{a:.1f},{y0 + high * (1 - b):.1f}" for a, b in zip(x[::-1], below[::-1], strict=True)]
            parts.append(f'<polygon points="{" ".join(up + down)}" fill="{colour}"/>')
            below = level
        parts.append(text(x0, y0 - 6, name, 13))
    rows = -(-len(paths) // columns)
    return document(14 + columns * (wide + 16), 80 + rows * (high + 40), parts)


def effects_picture(found: Mapping[str, Any], base: str) -> str:
    """Effect and 95 % interval of every arm on the hardest level, on all, and on wasted groups."""
    panels = {"hardest": "hardest level", "accuracy": "all levels", "wasted": "groups without signal"}
    arms = [name for name in found if name != base]
    wide, left, step = 200, 150, 22
    parts = [text(14, 22, f"difference from {base}, in points, with 95 % intervals", 14, weight="bold")]
    parts += [text(left - 12, 76 + step * i, name, 12, "end") for i, name in enumerate(arms)]
    for number, (measure, title) in enumerate(panels.items()):
        rows = [found[name][measure] for name in arms]
        low, high = min(0.0, *(r["low"] for r in rows)), max(0.0, *(r["high"] for r in rows))
        x0 = left + number * (wide + 40)

        def at(value: float, x0: float = x0, low: float = low, high: float = high) -> float:
            return x0 + wide * (value - low) / ((high - low) or 1.0)

        parts.append(text(x0, 50, title, 12))
        parts.append(
            f'<line x1="{at(0):.1f}" x2="{at(0):.1f}" y1="58" y2="{66 + step * len(arms)}" stroke="#8c959f"/>'
        )
        for i, r in enumerate(rows):
            y, colour = 72 + step * i, "#57606a" if r["low"] <= 0 <= r["high"] else "#1f6feb"
            line = f'x1="{at(r["low"]):.1f}" x2="{at(r["high"]):.1f}" y1="{y}" y2="{y}"'
            parts.append(f'<line {line} stroke="{colour}" stroke-width="2"/>')
            parts.append(f'<circle cx="{at(r["effect"]):.1f}" cy="{y}" r="4" fill="{colour}"/>')
        for value in (low, high):
            parts.append(text(at(value), 82 + step * len(arms), f"{value:+.1f}", 10, "middle"))
    return document(left + 3 * (wide + 40), 96 + step * len(arms), parts)


def table(result: Mapping[str, Any]) -> str:
    """The results in Markdown: means of the base, differences of the others; bold where the interval excludes zero."""
    columns = {"hardest": "hardest level, %", "accuracy": "all, %", "area": "area under the curve, %"}
    columns |= {"wasted": "groups without signal, %", "spread": "SD between kinds, points"}
    lines = ["| | " + " | ".join(columns.values()) + " | steps |", "|---" * (len(columns) + 2) + "|"]
    for name, found in result["arms"].items():
        cells = []
        for measure in columns:
            r = found[measure]
            if "effect" not in r:
                cells.append(f"{r['mean']:.1f}")
                continue
            cell = f"{r['effect']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]"
            cells.append(cell if r["low"] <= 0 <= r["high"] else f"**{cell}**")
        lines.append(f"| `{name}` | " + " | ".join(cells) + f" | {found['steps']:.0f} |")
    return "\n".join(lines)


def draw(result: Mapping[str, Any]) -> None:
    page = DOCS / "curricula.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table(result)}\n{END}{after}")
    (DOCS / "curricula.svg").write_text(effects_picture(result["arms"], result["base"]))
    paths = {name: np.array(table) for name, table in result["paths"].items()}
    (DOCS / "curriculum-paths.svg").write_text(paths_picture(paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parallel", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--draw", action="store_true", help="draw what was measured, measure nothing")
    a = parser.parse_args()
    if a.draw:
        draw(json.loads((RESULTS / "curricula.json").read_text()))
        return
    wanted, runs, paths = claims(), {}, {}
    for name, claim in wanted.items():
        if failed := play(claim, a.parallel):
            raise SystemExit(f"{name}: {failed}")
        for arm, who in ((claim.base, claim.base), (claim.arm, name)):
            kept: list[Path] = [facts_of(claim, arm) / f"{seed}.json" for seed in range(claim.seeds)]
            runs[who] = [json.loads(path.read_text()) for path in kept]
        if (path := runs[name][0]["path"]) and "/" in next(iter(path[0])):
            paths[name] = shares(path).tolist()
        print(f"{name}: done", flush=True)
    base = next(iter(wanted.values())).base
    chosen = tomllib.loads(SETTINGS.read_text())[GROUP]
    result = {"settings": chosen, "base": base, "arms": measured(runs, base), "paths": paths, "card": card()}
    write_result("curricula", result)
    draw(result)


if __name__ == "__main__":
    main()
