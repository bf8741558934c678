"""REINFORCE with the group's mean reward as baseline: make what was better than average likelier.

Williams (1992). Credit: A_i = r_i - mean of r over the answers to the same task. Objective: -A_i sum_t log
pi(y_it), mean over answers. Nothing is clipped and no ratio enters, so it is exact only for answers of the
present policy.
"""

from math import log

from etude.credit.group import advantage
from etude.objective.policy import plain
from etude.recipe import Credited, OffPolicy, Paper, Recipe
from etude.settings import stage

RECIPE = Recipe(
    name="reinforce",
    paper=Paper(
        "Simple statistical gradient-following algorithms for connectionist reinforcement learning", "", 1992
    ),
    idea="Make what was better than the group's average likelier, what was worse less likely. "
    "The baseline is the mean reward of all answers to the same task. Nothing is clipped.",
    equation="L = - mean_i sum_t (r_i - mean_j r_j) log pi(y_it)",
    stages={"credit": stage(advantage), "objective": stage(plain)},
    unchecked="its advantage acts on every batch whose rewards differ; nothing is claimed for it",
    examples=(
        Credited(
            "1 of 4 right; equal rewards teach nothing",
            [[1.0, 0, 0, 0], [1.0, 1.0, 1.0]],
            [[0.75, -0.25, -0.25, -0.25], [0, 0, 0]],
        ),
        OffPolicy(
            "no ratio, no clip; summed over two tokens, mean over two answers",
            ratio=(3.0, 1.0, 0.2),
            advantage=(0.5, 0.5, -0.5),
            lengths=(2, 1),
            loss=(-0.5 * (-1 + log(3)) - 0.5 * -1 + 0.5 * (-1 + log(0.2))) / 2,
            gradient=(-0.25, -0.25, 0.25),
        ),
    ),
)
