"""Runs made by hand for the tests of claims: curves of accuracy over updates, with seeds, problems and noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

PROBLEMS, SAMPLES = 400, 8


def facts(
    course: Callable[[float], float],
    seed: int,
    updates: int = 60,
    flops: float = 1e9,
    start: bool = False,
    seed_noise: float = 0.005,
    columns: Mapping[str, float] | None = None,
    **point: Any,
) -> dict[str, Any]:
    """The facts of a run of `updates` updates of `flops` each, whose accuracy after step t is `course(t)`, give or take
    `seed_noise`. `columns`: further metrics, constant over the steps; `point`: further facts of every evaluation."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(7).normal(0, 0.2, PROBLEMS)
    shift = rng.normal(0, seed_noise)
    curve = []
    for part in range(0 if start else 1, 7):
        step = updates * part / 6
        level = course(step) + (shift if part else 0.0)
        right = rng.binomial(SAMPLES, np.clip(level + hard, 0, 1))
        rows = [[str(i), int(r), SAMPLES] for i, r in enumerate(right)]
        spent = {"step": step, "flops": step * flops, "seconds": step, "mean": float(right.mean() / SAMPLES)}
        curve.append({**spent, "per_problem": rows, "steps_right": 1.0, "length": 20.0, **point})
    known = {"signal": 0.6, "unsolved": 0.1, "groups": 8.0, **(columns or {})}
    table = {name: [value] * updates for name, value in known.items()}
    table["flops"] = [flops * (i + 1) for i in range(updates)]
    return {"curve": curve, "hardest": [], "columns": table, "seconds": float(updates), "rss_mb": 1.0}


def seeds_of(
    course: Callable[[float], float], number: int = 5, first: int = 0, **how: Any
) -> list[dict[str, Any]]:
    return [facts(course, first + seed, **how) for seed in range(number)]


def rising(gain: float, start: float = 0.3, until: float = 60.0) -> Callable[[float], float]:
    """Accuracy that rises by `gain` within `until` updates, evenly, and stays."""
    return lambda step: start + gain * min(step / until, 1.0)


def base_runs(number: int = 5, **how: Any) -> list[dict[str, Any]]:
    """A baseline of 180 updates that gains 20 points in the first 60."""
    first = facts(rising(0.2), 100, updates=180, start=True, **how)
    return [first, *seeds_of(rising(0.2), number - 1, 101, updates=180, **how)]


Runs = Sequence[Mapping[str, Any]]
