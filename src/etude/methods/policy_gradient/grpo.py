"""GRPO: group-standardised advantages, PPO's clip."""

import numpy as np

from etude.credit.group import group_mean, standardised
from etude.objective.policy import clipped
from etude.recipe import ByHand, Credited, OffPolicy, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="grpo",
    paper=Paper(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "2402.03300",
        2024,
    ),
    idea="Answers to one task are compared with each other: reward minus the group's mean, over its standard deviation. "
    "The ratio to the sampling policy is clipped as in PPO. No critic is needed.",
    equation="A_i = (r_i - mean r) / (std r + 1e-4);  L = - mean_i mean_t min(rho A, clip(rho, 1-e, 1+e) A) + beta KL",
    departures=("beta = 0 by default: a run keeps no reference model unless asked to",),
    stages={"credit": stage(group_mean, std=True), "objective": stage(clipped)},
    examples=(
        ByHand("rewards 1, 0", lambda: standardised(np.array([1.0, 0.0]), 0.0), [1.0, -1.0]),
        ByHand(
            "1 of 4 right", lambda: standardised(np.array([1.0, 0, 0, 0]), 0.0), [3**0.5, *[-(3**-0.5)] * 3]
        ),
        Credited("1 of 2 right", [[1.0, 0.0]], [[1 / 1.0002, -1 / 1.0002]]),
        OffPolicy(
            "praise beyond the clip, within it; blame beyond it, within it",
            ratio=(1.5, 1.1, 0.5, 0.9),
            advantage=(1.0, 1.0, -1.0, -1.0),
            loss=(-1.2 - 1.1 + 0.8 + 0.9) / 4,
            gradient=(0, -1.1 / 4, 0, 0.9 / 4),
        ),
        Reduction(
            "without std, summed over tokens and on-policy it is REINFORCE",
            "reinforce",
            {"credit.std": False, "objective.mean": "sum"},
        ),
    ),
)
