"""Dynamic reward weighting: rewards gain weight by how they pull the policy's gradient."""

import numpy as np

from etude.credit.aspects import Influence, tilted
from etude.credit.example import attempt
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.aspects import aspects
from etude.settings import stage

MEASURED = (
    "the rewards are accuracy, conciseness (1 - length / limit) and format (the answer ended by itself)"
)
RECIPE = Recipe(
    name="dynamic_rewards",
    family="objective",
    n=96,
    paper=Paper(
        "Learning to Optimize Multi-Objective Alignment Through Dynamic Reward Weighting", "2509.11452", 2025
    ),
    idea="Several rewards are added up, and weight moves to those that pull the policy where all of them together pull it. "
    "A reward that is nearly exhausted, or works against the rest, fades. "
    "The weights move by exponentiated gradient at the policy's own rate.",
    equation="w_k <- softmax(log w_k + (lr / lambda) <g_k, sum_j g_j>);  then GRPO on sum_k w_k r_k",
    departures=(
        MEASURED,
        "lambda is given as a share of the learning rate, lr / lambda = 0.1 as in the paper",
        "the KL to the starting policy (0.001 in the paper) is off: --set objective.beta=0.001",
    ),
    stages={"reward": stage(aspects), "credit": stage(Influence), "objective": stage(clipped, mean="token")},
    claim="On the front of accuracy against length it dominates fixed weights.",
    examples=(
        ByHand(
            "2 of 6 tokens, right",
            lambda: list(aspects()(attempt(1.0, (1, 2))).values()),
            [8 / 9, 1, 2 / 3, 1],
        ),
        ByHand("no influence", lambda: np.exp(tilted(np.log([0.2, 0.8]), np.zeros(2), 1.0)), [0.2, 0.8]),
        ByHand(
            "log 2 more doubles the odds",
            lambda: np.exp(tilted(np.zeros(2), np.log([2, 1]), 1.0)),
            [2 / 3, 1 / 3],
        ),
        ByHand(
            "lambda endless", lambda: np.exp(tilted(np.log([0.2, 0.8]), np.array([9.0, 0]), 0.0)), [0.2, 0.8]
        ),
        Reduction(
            "a single reward is GRPO with a token mean",
            "grpo",
            {"credit.names": "accuracy"},
            {"objective.mean": "token"},
        ),
    ),
)
