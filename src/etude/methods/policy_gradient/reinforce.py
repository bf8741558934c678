"""REINFORCE with the group's mean reward as baseline."""

import numpy as np

from etude.credit.group import centred, group_mean
from etude.objective.policy import plain
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import stage

RECIPE = Recipe(
    name="reinforce",
    paper=Paper(
        "Simple statistical gradient-following algorithms for connectionist reinforcement learning", "", 1992
    ),
    idea="Make what was better than the group's average likelier, what was worse less likely. "
    "The baseline is the mean reward of all answers to the same task. Nothing is clipped.",
    equation="L = - mean_i sum_t (r_i - mean_j r_j) log pi(y_it)",
    stages={"credit": stage(group_mean), "objective": stage(plain)},
    examples=(
        ByHand("rewards 1, 0, 0, 0", lambda: centred(np.array([1.0, 0, 0, 0])), [0.75, -0.25, -0.25, -0.25]),
        ByHand("equal rewards teach nothing", lambda: centred(np.ones(3)), [0, 0, 0]),
    ),
)
