"""OREAL: clone the best, push away the worst, and let a learned token reward say where."""

import numpy as np

from etude.credit.redistribution import best_and_worst, shares
from etude.objective.policy import two_sided
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.settings import stage

TOKEN_REWARD = "token_reward"


RECIPE = Recipe(
    name="oreal",
    family="objective",
    n=170,
    paper=Paper(
        "Exploring the Limit of Outcome Reward for Learning Mathematical Reasoning", "2502.06781", 2025
    ),
    idea="Of each task one right answer is cloned and one wrong answer is pushed away, at half the weight. "
    "A copy of the model learns from the outcomes alone which prefixes lead to right answers. "
    "Its opinion decides how much of the outcome each token is given.",
    equation="L = mean_right w+_t A (-log pi(y_t)) + 0.5 mean_wrong w-_t A (-log pi(y_t)) + 0.01 KL;  w+- = clip(+-(2 p_t - 1), 0, 1)",
    departures=(
        "no steps that train the token reward alone: it starts undecided, so tokens have weight 0 until it has learned",
        "the token reward learns from a step's answers before it weighs them",
    ),
    stages={"credit": stage(best_and_worst), "objective": stage(two_sided)},
    companions={TOKEN_REWARD: Companion("copy", lr=4.0, heads={TOKEN_REWARD: 1})},
    claim="The down-weighted wrong answers beat cloning the right ones alone.",
    examples=(
        ByHand("p = 3/4, then 1/2", lambda: shares(np.array([np.log(3), -np.log(3)]), True), [0.5, 0.0]),
        ByHand(
            "the same in a wrong answer", lambda: shares(np.array([-np.log(3), np.log(3)]), False), [0.5, 0.0]
        ),
        Reduction(
            "all right answers at weight 1 and no wrong ones: RFT",
            "rft",
            {
                "credit.keep": 0,
                "credit.baseline": False,
                "credit.weigh": False,
                "objective.negative": 0.0,
                "objective.beta": 0.0,
            },
            {"credit.distinct": False},
        ),
    ),
)
