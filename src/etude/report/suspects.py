"""Which episodes of a step stand behind a finding: the few that a person should look at first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

COLUMNS = ("id", "origin", "stop", "reward", "sampled", "logp")
MOST = 4


def suspects(episodes: pa.Table, name: str, most: int = MOST) -> list[str]:
    """Ids of up to `most` episodes of one step (rows with `COLUMNS`) that best show the finding `name`."""
    rows = episodes.select(list(COLUMNS)).to_pylist()
    if name == "errors":
        return [row["id"] for row in rows if row["origin"] == "failed"][:most]
    rows = [row for row in rows if row["origin"] != "failed"]
    if name == "truncation":
        rows = [row for row in rows if row["stop"] == "length"]
    if name in ("length explosion", "truncation"):
        rows.sort(key=lambda row: -sum(row["sampled"]))
    elif name in ("entropy rise", "kl", "drift", "gap", "clip", "not finite"):
        rows.sort(key=_mean_logp)
    elif name == "entropy collapse":
        rows.sort(key=lambda row: -_mean_logp(row))
    return [row["id"] for row in rows[:most]]


def _mean_logp(row: dict[str, list[float]]) -> float:
    values = np.array(row["logp"], float)[np.array(row["sampled"], bool)]
    return float(values.mean()) if len(values) else 0.0
