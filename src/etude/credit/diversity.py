"""Answers unlike the others of their group count for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.credit.group import Credit, constant, standardised
from etude.types import Array, Group, Signal


def distances(embeddings: Array) -> Array:
    """d_i = |e_i - mean e| / (max_j - min_j of these distances), f64[G] of [G, D]; 1 where all are equally far."""
    embeddings = np.asarray(embeddings, np.float64)
    distance = np.linalg.norm(embeddings - embeddings.mean(0), axis=1)
    width = np.ptp(distance)
    return distance / width if width > 1e-5 * distance.max() else np.ones(len(distance))


def diverse() -> Credit:
    """GRPO's advantage times how far an answer lies from the others of its group, by the policy's own last hidden
    states, averaged over the answer (ExIt, arXiv 2509.04575)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        everyone = [constant(e, 1.0) for g in groups for e in g.episodes]
        rows = context.rows(everyone, lambda out: out.hidden, {"hidden"})
        means = iter([_mean(row[s.episode.sampled]) for s, row in zip(everyone, rows, strict=True)])
        signals = []
        for group in groups:
            advantages = standardised(group.rewards)
            if len(advantages):
                advantages = advantages * distances(np.stack([next(means) for _ in group.episodes]))
            signals += [constant(e, float(a)) for e, a in zip(group.episodes, advantages, strict=True)]
        return signals

    return credit


def _mean(rows: Array) -> Array:
    return rows.mean(0) if len(rows) else np.zeros(rows.shape[1])
