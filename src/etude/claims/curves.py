"""A run's facts read at a number of updates or of FLOPs, by interpolation between its evaluations.

A curve is a list of points {step, flops, mean, per_problem, ...} in the order in which they were made. The untrained
model, at 0, is the same for all runs of a claim; it was examined once, in the base's first seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from etude.evaluate.passk import pass_at
from etude.types import Array

K = 8  # attempts of pass@8
Facts = Mapping[str, Any]
OVER_STEPS = ("grad_norm_cv", "wasted")  # read from the steps, not from the evaluations


def with_start(runs: Sequence[Facts], start: Facts) -> list[Facts]:
    """The runs with the untrained model's point (of `start`, the base's first seed) as the first of each curve."""
    first = start["curve"][0]
    return [r if r["curve"][0]["step"] == 0 else {**r, "curve": [first, *r["curve"]]} for r in runs]


def table_at(runs: Sequence[Facts], metric: str, axis: str, at: Sequence[float]) -> Array:
    """`metric` of every run when it had spent `at[s]` of `axis` ("step" or "flops"): [S, P] for what is counted per
    problem, [S] otherwise. Linear between the two evaluations around it; at the end beyond the last."""
    if metric in OVER_STEPS:
        return np.array([_over_steps(run, metric, axis, x) for run, x in zip(runs, at, strict=True)])
    keys = _keys(runs[0], metric)
    rows = []
    for run, x in zip(runs, at, strict=True):
        points = run["curve"]
        spent = np.array([p[axis] for p in points], float)
        i = int(np.clip(np.searchsorted(spent, x), 1, len(points) - 1))
        before, after = (_value(points[j], metric, keys, run) for j in (i - 1, i))
        gap = spent[i] - spent[i - 1]
        share = float(np.clip((x - spent[i - 1]) / gap, 0, 1)) if gap > 0 else 1.0
        # What is not there at the point that does not count (pass@8 from fewer attempts) does not spoil the other.
        rows.append(after if share == 1 else before if share == 0 else (1 - share) * before + share * after)
    return np.array(rows)


def ends(runs: Sequence[Facts], axis: str) -> list[float]:
    """What every run had spent at its last evaluation."""
    return [float(run["curve"][-1][axis]) for run in runs]


def _keys(run: Facts, metric: str) -> list[str]:
    if metric == "hardest":
        return sorted(run["hardest"])
    name = {"last": "twice", "gain": "twice", "elsewhere": "elsewhere"}.get(metric, "per_problem")
    return sorted(row[0] for row in run["curve"][-1].get(name, []))


def _value(point: Facts, metric: str, keys: Sequence[str], run: Facts) -> Array:
    if metric in ("accuracy", "hardest"):
        of = {key: c / n for key, c, n in point["per_problem"]}
    elif metric == "pass@8":
        of = {key: float(pass_at(K, c, n)) if n >= K else np.nan for key, c, n in point["per_problem"]}
    elif metric == "elsewhere":
        of = {key: c / n for key, c, n in point["elsewhere"]}
    elif metric in ("last", "gain"):
        of = {key: (last - first * (metric == "gain")) / n for key, first, last, n in point["twice"]}
    else:
        return np.array(float(point[metric]))
    return np.array([of.get(key, np.nan) for key in keys])


def _over_steps(run: Facts, metric: str, axis: str, x: float) -> float:
    """Of the steps until `x`: the spread of the gradient norm in percent of its mean, or the percentage of groups that
    were drawn for nothing."""
    columns = run["columns"]
    spent = columns["flops"] if axis == "flops" else range(1, len(columns["flops"]) + 1)
    number = max(2, sum(s <= x + 1e-9 for s in spent))
    if metric == "grad_norm_cv":
        norms = [v for v in columns["grad_norm"][:number] if v]
        return 100 * float(np.std(norms) / np.mean(norms)) if norms else float("nan")
    return 100 - 100 * float(np.average(columns["signal"][:number], weights=columns["groups"][:number]))
