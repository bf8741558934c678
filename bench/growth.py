"""How a step's time grows: with tasks, samples per task, completion length, prompt length, and model width.

    python bench/growth.py [--axes tasks,samples,...] [--repeats 2] [--again] [--draw]

Synthetic steps, so that sizes are exact: random prompts, completions of a fixed length (the end token does not end
them), advantages of 1 and -1, every group trained; sampling, forward, backward, AdamW and publishing are etude's own. One
axis varies at a time; the better of `--repeats` steps counts. Points that bench/results/growth.json has from the same
commit are kept unless `--again`; `--draw` only draws. The samples axis is measured twice: as it is, and with a prompt of
its own for every sample, which is what it would cost to pay a prompt per sample. Draws docs/growth.svg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from contestants import HERE, RESULTS, card, ours, shown, write_result
from picture import Panel, Series, panels

# tasks, samples, prompt, completion, model; the axis' own values replace one of them
AXES: dict[str, tuple[dict[str, Any], str, list[Any]]] = {
    "tasks": ({"samples": 4, "prompt": 64, "completion": 16}, "tasks", [4, 8, 16, 32, 64]),
    "samples": ({"tasks": 4, "prompt": 512, "completion": 16}, "samples", [2, 4, 8, 16, 32]),
    "samples apart": (
        {"tasks": 4, "prompt": 512, "completion": 16, "share": False},
        "samples",
        [2, 4, 8],
    ),
    "completion": ({"tasks": 2, "samples": 4, "prompt": 64}, "completion", [16, 64, 256, 1024]),
    "prompt": ({"tasks": 4, "samples": 4, "completion": 16}, "prompt", [32, 128, 512, 2048]),
    "width": (
        {"tasks": 4, "samples": 4, "prompt": 64, "completion": 32},
        "model",
        ["tiny", "30M", "135M", "360M"],
    ),
}
TITLES = {
    "tasks": "tasks (x 4 samples, 64 + 16 tokens)",
    "samples": "samples per task (4 tasks, 512 + 16 tokens)",
    "completion": "completion tokens (2 x 4, prompts of 64)",
    "prompt": "prompt tokens (4 x 4, completions of 16)",
    "width": "parameters (4 x 4, 64 + 32 tokens)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--axes", default=",".join(AXES), help="which to measure")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="measure points again that are there")
    parser.add_argument("--draw", action="store_true", help="draw what is there, measure nothing")
    a = parser.parse_args()
    path = RESULTS / "growth.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    commit = card()["commit"]
    same = a.draw or old.get("card", {}).get("commit") == commit
    points = old.get("points", {}) if same and not a.again else {}
    child = None
    for axis in [] if a.draw else a.axes.split(","):
        base, varied, values = AXES[axis]
        for value in values:
            name = f"{axis} = {value}"
            if name in points:
                continue
            child = child or ours("growth_etude.py", {})
            job = {**base, varied: value}
            found = min((child.turn(**job) for _ in range(a.repeats)), key=lambda f: f["seconds"])
            points[name] = {"axis": axis, "value": value, **found}
            shown(name, {k: v for k, v in found.items() if k != "peak_mb"})
            write_result("growth", _result(points))
    if child:
        child.end()
    draw(points, (HERE.parent / "docs" if RESULTS == HERE / "results" else RESULTS) / "growth.svg")
    write_result("growth", _result(points))


def _result(points: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"what": "seconds of one step, one axis varied at a time", "points": points}
    slopes = {}
    for axis in ("samples", "samples apart"):
        x, y = curve(points, axis)
        if len(x) > 1:
            slopes[axis] = float(np.polyfit(x, y, 1)[0])
    if len(slopes) == 2:
        shared, apart = slopes.values()
        print(
            f"one more sample for each of 4 tasks costs {shared:.3f} s with the prompt shared, "
            f"{apart:.3f} s with a prompt of its own: {apart / shared:.1f} times"
        )
        result["samples_slope"] = {"shared": shared, "prompt_each": apart, "ratio": apart / shared}
    return result


def curve(points: dict[str, Any], axis: str, what: str = "seconds") -> tuple[list[float], list[float]]:
    chosen = [p for p in points.values() if p["axis"] == axis]
    x = [float(p["parameters"] if axis == "width" else p["value"]) for p in chosen]
    order = np.argsort(x)
    return [x[i] for i in order], [chosen[i][what] for i in order]


def draw(points: dict[str, Any], path: Path) -> None:
    def series(axis: str) -> list[Series]:
        return [
            Series("whole step", *curve(points, axis)),
            Series("sampling", *curve(points, axis, "rollout_seconds")),
        ]

    wanted = []
    for axis, title in TITLES.items():
        lines = series(axis)
        if axis == "samples":
            lines.append(Series("step, a prompt for every sample", *curve(points, "samples apart")))
        if len(lines[0].x) > 1:
            wanted.append(Panel(title, [line for line in lines if line.x], "s"))
    path.write_text(panels("Seconds of one training step", wanted, columns=3))


if __name__ == "__main__":
    main()
