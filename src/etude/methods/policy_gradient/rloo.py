"""REINFORCE with the mean of the other answers as baseline."""

import numpy as np

from etude.credit.group import leave_one_out, others_mean
from etude.objective.policy import plain
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="rloo",
    paper=Paper(
        "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback",
        "2402.14740",
        2024,
    ),
    idea="Each answer is compared with the average of the other answers to the same task. "
    "Leaving the answer itself out makes the baseline independent of it, so the gradient is unbiased. "
    "The whole answer is one action.",
    equation="L = - mean_i sum_t (r_i - mean_{j != i} r_j) log pi(y_it)",
    stages={"credit": stage(others_mean), "objective": stage(plain)},
    examples=(
        ByHand("rewards 1, 0, 0", lambda: leave_one_out(np.array([1.0, 0, 0])), [1.0, -0.5, -0.5]),
        Reduction("G/(G-1) times REINFORCE with the group mean (G = 4)", "reinforce", scale=4 / 3),
    ),
)
