"""BNPO: advantages divided by a Beta density that follows the policy."""

import numpy as np

from etude.credit.normalise import beta_density, beta_normalised, beta_scales, beta_shape
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="bnpo",
    family="objective",
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
