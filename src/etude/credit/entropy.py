"""Where the policy's own uncertainty says how much a token counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, group_mean, laid
from etude.credit.imitate import shown
from etude.settings import Setting
from etude.types import Array, Group, Signal


def bonuses(advantage: Sequence[Array], logp: Sequence[Array], alpha: float, most: float) -> list[Array]:
    """clip(alpha softmax_t(cov_t), 0, most) per sequence; cov_t = (A_t - mean A)(log pi_t - mean log pi), means
    over the tokens of all sequences."""
    if not advantage:
        return []
    mean_a, mean_p = np.concatenate(advantage).mean(), np.concatenate(logp).mean()
    covs = [(a - mean_a) * (p - mean_p) for a, p in zip(advantage, logp, strict=True)]
    powers = [np.exp(c - c.max()) for c in covs]
    return [np.clip(alpha * e / e.sum(), 0, most) for e in powers]


def with_bonus(
    alpha: Annotated[float, Setting("sum of a sequence's entropy weights before the bound", low=0)] = 0.1,
    most: Annotated[float, Setting("bound on a token's entropy weight", low=0)] = 5.0,
) -> Credit:
    """GRPO's advantage. Extras: `bonus`, the weight of each token's entropy (TEA-RL, arXiv 2508.03178)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        plain = [s for s in group_mean(std=True)(groups, context) if s.episode.sampled.any()]
        masks = [s.episode.sampled for s in plain]
        advantages = [s.advantage[m] for s, m in zip(plain, masks, strict=True)]
        logps = [s.episode.logp[m] for s, m in zip(plain, masks, strict=True)]
        rows = bonuses(advantages, logps, alpha, most)
        return [replace(s, extras={"bonus": laid(m, r)}) for s, m, r in zip(plain, masks, rows, strict=True)]

    return credit


def surprising(
    share: Annotated[float, Setting("share of solution tokens that are trained on", low=0, high=1)] = 0.8,
    factor: Annotated[float, Setting("c: how much entropy excuses a token's loss", low=0)] = 0.8,
):
    """Imitation of the tokens whose cross-entropy most exceeds `factor` times the policy's entropy there
    (Entropy-SFT, arXiv 2508.03178)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = shown(groups)
        deltas = context.rows(signals, lambda out: -out.logp - factor * out.entropy, {"entropy"})
        masks = [s.weights["imitation"] > 0 for s in signals]
        kept = largest([d[m] for d, m in zip(deltas, masks, strict=True)], share)
        rows = [laid(mask, keep) for mask, keep in zip(masks, kept, strict=True)]
        return [replace(s, weights={"imitation": row}) for s, row in zip(signals, rows, strict=True)]

    return credit


def largest(values: Sequence[Array], share: float) -> list[Array]:
    """Which entries, over all arrays, are among the `share` of largest ones; of ties, the first."""
    flat = np.concatenate(values) if values else np.zeros(0)
    keep = np.zeros(len(flat), bool)
    keep[np.argsort(-flat, kind="stable")[: round(share * len(flat))]] = True
    return np.split(keep, np.cumsum([len(v) for v in values])[:-1])
