"""PPO with a value head on the policy's trunk and generalised advantage estimation."""

import numpy as np

from etude.credit.baseline import gae, value_baseline
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import stage
from etude.train.step import Update

RECIPE = Recipe(
    name="ppo",
    paper=Paper("Proximal Policy Optimization Algorithms", "1707.06347", 2017),
    idea="A value head predicts the reward from every token on. "
    "A token's advantage is how much better things went than predicted, smoothed by lambda. "
    "Each batch is used twice; the clip keeps the policy near the one that sampled it.",
    equation="delta_t = r_t + gamma V_{t+1} - V_t;  A_t = sum_k (gamma lambda)^k delta_{t+k};  L = clip(A) + c (V - R)^2 / 2",
    departures=("the value head is linear on the policy's last hidden state and starts at 0",),
    stages={
        "credit": stage(value_baseline),
        "objective": stage(clipped_with_value),
        "update": stage(Update, passes=2),
    },
    examples=(
        ByHand(
            "gamma = lambda = 1: reward minus value",
            lambda: gae(np.array([0.0, 0, 1]), np.array([0.2, 0.4, 0.9]), 1.0, 1.0)[0],
            [0.8, 0.6, 0.1],
        ),
        ByHand(
            "lambda = 0: the one-step error",
            lambda: gae(np.array([0.0, 1.0]), np.array([0.5, 0.25]), 1.0, 0.0)[0],
            [-0.25, 0.75],
        ),
    ),
)
