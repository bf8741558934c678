"""BNPO: advantages divided by a Beta density that follows the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from scipy.special import betaln, xlog1py, xlogy

from etude.credit.group import Credit
from etude.credit.outcome import Names, assigned, scores
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


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


RECIPE = Recipe(
    name="bnpo",
    n=92,
    paper=Paper("BNPO: Beta Normalization Policy Optimization", "2506.02864", 2025),
    idea="How much an advantage should be scaled depends on how the pass rates of all tasks are spread just now. "
    "A Beta distribution is fitted to them at every step and its density divides the advantage. "
    "REINFORCE and GRPO are the two special cases in which the density is fixed.",
    equation="A_i = (r_i - p) / f_Beta(p; 1 + a/3, 1 + b/3), (a, b) from mean and variance of p over the tasks of the step",
    departures=("a step whose groups all agree is scaled by 1, as the code does for a lone group",),
    stages={
        "credit": stage(beta_normalised),
        "objective": stage(clipped, high=0.28, mean="sum", dual=10.0),
    },
    claim="The gradient norm varies less over training than GRPO's on tasks of mixed difficulty.",
    examples=(
        ByHand(
            "p = 1/4, 3/4: m = 1/2, v = 1/8, a = b = 1/2",
            lambda: beta_shape(np.array([0.25, 0.75])),
            [7 / 6, 7 / 6],
        ),
        ByHand(
            "alpha = beta = 3/2: 8/pi sqrt(p(1-p))",
            lambda: beta_density(np.array([0.2]), 1.5, 1.5),
            [8 / np.pi * 0.4],
        ),
        ByHand("a lone group", lambda: beta_scales(np.array([0.3])), [1.0]),
        Reduction("alpha = beta = 1 and on-policy: REINFORCE", "reinforce", {"credit.pull": 0.0}),
    ),
)
