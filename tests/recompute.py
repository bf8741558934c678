"""The logged means of a step, computed again from its Parquet rows alone: what is on disk can be checked
against what was printed. The definitions are those of `train.metrics.step_metrics`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

COLUMNS = ("group", "origin", "kind", "stop", "correct", "reward", "scores", "sampled", "spans")


def recompute(episodes: pa.Table) -> dict[str, float]:
    """From one step's rows, which must hold `COLUMNS`: reward, correct, length, truncated, turns and score/*
    as means over the episodes that did not fail; signal and kind/<kind>/share as shares of the groups;
    kind/<kind>/reward; errors as the share of episodes that failed; groups as a count."""
    rows = [r for r in episodes.select(list(COLUMNS)).to_pylist() if r["origin"] != "signal"]
    fine = [r for r in rows if r["origin"] == "group"]
    kinds = {r["group"]: r["kind"] for r in rows}
    scores = [json.loads(r["scores"]) for r in fine]
    rewards: dict[int, list[float]] = {group: [] for group in kinds}
    for row in fine:
        rewards[row["group"]].append(row["reward"])
    out = {
        "reward": _mean(r["reward"] for r in fine),
        "correct": _mean(r["correct"] for r in fine),
        "signal": _mean(len(g) > 1 and float(np.ptp(g)) > 1e-9 for g in rewards.values()),
        "length": _mean(sum(r["sampled"]) for r in fine),
        "truncated": _mean(r["stop"] == "length" for r in fine),
        "turns": _mean(sum(span["sampled"] for span in r["spans"]) for r in fine),
        "errors": (len(rows) - len(fine)) / max(1, len(rows)),
        "groups": float(len(kinds)),
    }
    for name in {name for row in scores for name in row if name != "reward"}:
        out[f"score/{name}"] = _mean(row[name] for row in scores if name in row)
    for kind in set(kinds.values()):
        out[f"kind/{kind}/reward"] = _mean(r["reward"] for r in fine if r["kind"] == kind)
        out[f"kind/{kind}/share"] = _mean(mine == kind for mine in kinds.values())
    return out


def _mean(values: Iterable[Any]) -> float:
    listed = [float(value) for value in values]
    return float(np.mean(listed)) if listed else 0.0
