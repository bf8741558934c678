"""BNPO: advantages divided by a Beta density that follows the policy.

Xiao et al. (arXiv 2506.02864). Credit: A_i = (r_i - p) / f_Beta(p; alpha, beta), p the mean reward of the
group; alpha and beta are fitted at every step, by moments, to the p of all its groups. Objective: PPO's
clipped surrogate with dual clip, summed over an answer. A fixed density gives REINFORCE (alpha = beta = 1)
and GRPO (alpha = beta = 3/2).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gamma
from typing import Annotated

import numpy as np
from scipy.special import betaln, xlog1py, xlogy

from etude.credit.group import Credit, assigned
from etude.credit.outcome import Names, scores
from etude.objective.policy import clipped
from etude.recipe import ByHand, Credited, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Group, Signal


def beta_shape(p: Array, pull: float = 1 / 3) -> tuple[float, float]:
    """(alpha, beta) for group means p of mean m and variance v: a = (m (1-m) / v - 1) m, b = (m (1-m) / v - 1) (1-m);
    alpha = max(1, 1 + pull a), beta = max(1, 1 + pull b). (1, 1) where p has no spread: a lone group, or groups that all
    agree."""
    m, v = p.mean(), p.var(ddof=1) if len(p) > 1 else 0.0
    if v <= 0:
        return 1.0, 1.0
    both = m * (1 - m) / v - 1
    return max(1.0, 1 + pull * both * m), max(1.0, 1 + pull * both * (1 - m))


def beta_density(p: Array, alpha: float, beta: float) -> Array:
    """f_Beta(p; alpha, beta) = p^(alpha-1) (1-p)^(beta-1) / B(alpha, beta)."""
    return np.exp(xlogy(alpha - 1, p) + xlog1py(beta - 1, -p) - betaln(alpha, beta))


def beta_normalised(
    names: Names = "reward",
    pull: Annotated[float, Setting("share of the fitted a, b in alpha - 1, beta - 1", low=0)] = 1 / 3,
) -> Credit:
    """A_i = (r_i - p) / max(f_Beta(p), 1e-6). Of several scores in [0, 1], each has its own fit, and A is the mean."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        played = [g for g in groups if g.episodes]
        if not played:
            return []
        rows = scores(played, names)
        p = np.stack([r.mean(1) for r in rows])  # f64[groups, K]
        factors = np.stack(
            [1 / np.maximum(beta_density(column, *beta_shape(column, pull)), 1e-6) for column in p.T], 1
        )
        advantages = [f @ (r - r.mean(1, keepdims=True)) / len(r) for f, r in zip(factors, rows, strict=True)]
        return assigned(played, advantages)

    return credit


# p = 1/4 and 1/2: m = 3/8, v = 1/32, a + b = m (1-m) / v - 1 = 6.5, alpha = 1 + 6.5 m / 3, beta = 1 + 6.5 (1-m) / 3
ALPHA, BETA = 1 + 6.5 * 0.375 / 3, 1 + 6.5 * 0.625 / 3
B = gamma(ALPHA) * gamma(BETA) / gamma(ALPHA + BETA)
QUARTER = 0.25 ** (ALPHA - 1) * 0.75 ** (BETA - 1) / B  # f_Beta(1/4)
HALF = 0.5 ** (ALPHA - 1) * 0.5 ** (BETA - 1) / B  # f_Beta(1/2)
RECIPE = Recipe(
    name="bnpo",
    paper=Paper("BNPO: Beta Normalization Policy Optimization", "2506.02864", 2025),
    published_lr=1e-6,
    idea="How much an advantage should be scaled depends on how the pass rates of all tasks are spread just now. "
    "A Beta distribution is fitted to them at every step and its density divides the advantage. "
    "REINFORCE and GRPO are the two special cases in which the density is fixed.",
    equation="A_i = (r_i - p) / f_Beta(p; 1 + a/3, 1 + b/3), (a, b) from mean and variance of p over the tasks of the step",
    departures=("a step whose groups all agree is scaled by 1, as the code does for a lone group",),
    stages={
        "credit": stage(beta_normalised),
        "objective": stage(clipped, clip_high=0.28, mean="sum", dual_clip=10.0),
    },
    claim="The gradient norm varies less over training than GRPO's on tasks of mixed difficulty.",
    unchecked="its scale acts on every mixed group, and the gate 'mixed' counts those",
    examples=(
        Credited(
            "two tasks, 1 of 4 and 1 of 2 right",
            [[1.0, 0, 0, 0], [1.0, 0]],
            [[0.75 / QUARTER, *[-0.25 / QUARTER] * 3], [0.5 / HALF, -0.5 / HALF]],
        ),
        Credited("a lone group is scaled by 1", [[1.0, 0, 0, 0]], [[0.75, -0.25, -0.25, -0.25]]),
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
        OffPolicy(
            "praise above 1.28, within, below, far above; blame above, within, below, and above the dual clip of 10",
            ratio=(1.3, 1.25, 0.5, 12.0, 5.0, 0.85, 0.75, 12.0),
            advantage=(1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0),
            lengths=(2, 6),
            loss=(-1.28 - 1.25 - 0.5 - 1.28 + 5 + 0.85 + 0.8 + 10) / 2,
            gradient=(0, -1.25 / 2, -0.5 / 2, 0, 5 / 2, 0.85 / 2, 0, 0),
        ),
        Reduction("alpha = beta = 1 and on-policy: REINFORCE", "reinforce", {"credit.pull": 0.0}),
    ),
)
