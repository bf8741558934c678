"""RLOO: REINFORCE with the mean reward of the other answers as baseline.

Ahmadian et al. (arXiv 2402.14740). Credit: A_i = r_i - mean of r over the other answers to the same task,
which the answer itself does not influence, so the gradient is unbiased. Objective: that of REINFORCE, a whole
answer as one action.
"""

from math import log

from etude.credit.group import advantage
from etude.objective.policy import plain
from etude.recipe import Credited, OffPolicy, Paper, Recipe, Reduction
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
    stages={"credit": stage(advantage, baseline="leave one out"), "objective": stage(plain)},
    examples=(
        Credited(
            "1 of 3 right: 1 - 0, 0 - 1/2; a lone answer has no baseline",
            [[1.0, 0, 0], [1.0]],
            [[1.0, -0.5, -0.5], [0]],
        ),
        OffPolicy(
            "no ratio, no clip; summed over two tokens, mean over two answers",
            ratio=(3.0, 1.0, 0.2),
            advantage=(1.0, 1.0, -0.5),
            lengths=(2, 1),
            loss=(-(-1 + log(3)) - -1 + 0.5 * (-1 + log(0.2))) / 2,
            gradient=(-0.5, -0.5, 0.25),
        ),
        Reduction("G/(G-1) times REINFORCE with the group mean (G = 4)", "reinforce", scale=4 / 3),
    ),
)
