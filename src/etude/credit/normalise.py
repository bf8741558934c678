"""What is subtracted from a group's rewards, and what divides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from scipy.special import betaln, xlog1py, xlogy

from etude.credit.group import Credit, batch_whitened, centred, constant, group_mean, standardised
from etude.credit.outcome import Names, assigned, scores
from etude.settings import Setting
from etude.types import Array, Group, Signal


def over_batch(groups: Sequence[Array], epsilon: float = 1e-4) -> list[Array]:
    """(r_i - mean of the group) / (std of all rewards + epsilon)."""
    std = np.concatenate(groups).std() if len(groups) else 0.0
    return [centred(r) / (std + epsilon) for r in groups]


def mixed_scale(
    std: Annotated[str, Setting("whose spread divides", choices=("batch", "group", "off"))] = "batch",
) -> Credit:
    """GRPO's advantage with another spread (Lite PPO, arXiv 2508.08221)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return assigned(groups, over_batch([g.rewards for g in groups]))

    return credit if std == "batch" else group_mean(std=std == "group")


def beta_shape(p: Array, pull: float = 1 / 3) -> tuple[float, float]:
    """(alpha, beta) for group means p: moments of p give Beta(a, b); alpha = max(1, 1 + a/3), beta likewise.
    (1, 1) where p has no spread: a lone group, or groups that all agree."""
    m, v = p.mean(), p.var(ddof=1) if len(p) > 1 else 0.0
    if v <= 0:
        return 1.0, 1.0
    both = m * (1 - m) / v - 1
    return max(1.0, 1 + pull * both * m), max(1.0, 1 + pull * both * (1 - m))


def beta_density(p: Array, alpha: float, beta: float) -> Array:
    """f_Beta(p; alpha, beta)."""
    return np.exp(xlogy(alpha - 1, p) + xlog1py(beta - 1, -p) - betaln(alpha, beta))


def beta_scales(p: Array, pull: float = 1 / 3) -> Array:
    """1 / f_Beta(p), at most 1e6."""
    return 1 / np.maximum(beta_density(p, *beta_shape(p, pull)), 1e-6)


def beta_normalised(
    names: Names = "reward",
    pull: Annotated[float, Setting("share of the fitted a, b in alpha - 1, beta - 1", low=0)] = 1 / 3,
) -> Credit:
    """A_i = (r_i - p) / f_Beta(p), p the mean of the group; the density is fitted to all groups of the step. Of
    several scores in [0, 1], each has its own fit, and A is the mean (BNPO, arXiv 2506.02864)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        played = [g for g in groups if g.episodes]
        if not played:
            return []
        rows = scores(played, names)
        p = np.stack([r.mean(1) for r in rows])  # f64[groups, K]
        factors = np.stack([beta_scales(column, pull) for column in p.T], 1)
        advantages = [f @ (r - r.mean(1, keepdims=True)) / len(r) for f, r in zip(factors, rows, strict=True)]
        return assigned(played, advantages)

    return credit


def normalised(
    over: Annotated[str, Setting("whose spread divides the advantage", choices=("batch", "group"))] = "batch",
) -> Credit:
    """r - mean of the group, then whitened over all tokens of the batch, or divided by the group's own std
    (DLER, arXiv 2510.15110)."""
    return batch_whitened() if over == "batch" else group_mean(std=True)


def apart(rewards: Array, guided: Array) -> Array:
    """Standardised among the guided and among the others."""
    advantages = np.zeros(len(rewards))
    for side in (guided, ~guided):
        advantages[side] = standardised(rewards[side])
    return advantages


def two_crowds(
    pooled: Annotated[bool, Setting("standardise guided and unguided attempts together")] = False,
) -> Credit:
    """GRPO's advantage, by default among the guided attempts of a group and among the others apart; of a group
    that was guided all others failed, so they teach nothing then (Guide, arXiv 2506.13923)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        guided = [np.array([e.notes.get("guided", False) for e in g.episodes], bool) for g in groups]
        rewards = [g.rewards for g in groups]
        if pooled:
            return assigned(groups, [standardised(r) for r in rewards])
        return assigned(groups, [apart(r, who) for r, who in zip(rewards, guided, strict=True)])

    return credit


def balanced_mean(
    shift: Annotated[float, Setting("baseline minus the mean reward of the group", low=-1, high=1)] = 0.0,
    balance: Annotated[bool, Setting("drop wrong answers at random till right ones are as many")] = False,
) -> Credit:
    """A_i = r_i - (mean of the kept + shift) (REC, arXiv 2509.24203)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            rewards, kept = group.rewards, np.arange(len(group.episodes))
            if balance:
                bad = rewards < rewards.mean()
                drawn = context.rng("balance", context.drawn, group.task.key).permutation(kept[bad])
                kept = np.sort(np.concatenate([kept[~bad], drawn[: sum(~bad)]]))
            advantages = centred(rewards[kept]) - shift
            signals += [constant(group.episodes[i], float(a)) for i, a in zip(kept, advantages, strict=True)]
        return signals

    return credit


def pool_mean() -> Credit:
    """r_i - mean of the whole pool, for the attempts that are kept (notes `kept`); the others teach nothing and count
    in no mean (Reinforce-Ada, arXiv 2510.04996)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return [
            constant(episode, float(advantage))
            for group in groups
            for episode, advantage in zip(group.episodes, centred(group.rewards), strict=True)
            if episode.notes["kept"]
        ]

    return credit
