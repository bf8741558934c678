"""Lite PPO: two techniques are enough."""

import numpy as np

from etude.credit.normalise import mixed_scale, over_batch
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="lite_ppo",
    family="objective",
    n=261,
    paper=Paper("Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning", "2508.08221", 2025),
    idea="Of the many tricks around GRPO, two carry a base model: the batch's standard deviation as scale of the advantage, "
    "and a loss that counts every token alike. A group with nearly equal rewards is then not blown up. Nothing else is added.",
    equation="A_i = (r_i - mean_group r) / (std_batch r + 1e-4);  L = - sum_it min(rho A, clip(rho, 1-e, 1+e) A) / sum_i |y_i|",
    departures=(
        "its companion findings are settings: credit.std, objective.mean (sequence suits aligned models), objective.high",
    ),
    stages={"credit": stage(mixed_scale), "objective": stage(clipped, mean="token")},
    claim="On tasks of mixed difficulty the batch's std beats the group's std from a base model.",
    examples=(
        ByHand(
            "groups 1,0 and 1,1: std of 1,0,1,1",
            lambda: over_batch([np.array([1.0, 0]), np.ones(2)], 0.0),
            [[3**-0.5 * 2, -(3**-0.5) * 2], [0, 0]],
        ),
        Reduction(
            "without any std, summed and on-policy it is REINFORCE",
            "reinforce",
            {"credit.std": "off", "objective.mean": "sum"},
        ),
        Reduction(
            "with the group's std it is GRPO with a token mean",
            "grpo",
            {"credit.std": "group"},
            {"objective.mean": "token"},
        ),
    ),
)
