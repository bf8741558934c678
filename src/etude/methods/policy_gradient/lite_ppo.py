"""Lite PPO: two techniques are enough.

Liu et al. (arXiv 2508.08221). Credit: the group's mean as baseline, the standard deviation of all rewards of
the batch as scale. Objective: PPO's clipped surrogate as a mean over tokens.
"""

from etude.credit.group import advantage
from etude.objective.policy import clipped
from etude.recipe import Credited, OffPolicy, Paper, Recipe, Reduction
from etude.settings import stage

STD = 3**0.5 / 4  # of the rewards 1, 0, 1, 1
RECIPE = Recipe(
    name="lite_ppo",
    paper=Paper("Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning", "2508.08221", 2025),
    idea="Of the many tricks around GRPO, two carry a base model: the batch's standard deviation as scale of the advantage, "
    "and a loss that counts every token alike. A group with nearly equal rewards is then not blown up. Nothing else is added.",
    equation="A_i = (r_i - mean_group r) / (std_batch r + 1e-4);  L = - sum_it min(rho A, clip(rho, 1-e, 1+e) A) / sum_i |y_i|",
    departures=(
        "its companion findings are settings: credit.scale, objective.mean (episode suits aligned models), "
        "objective.clip_high",
    ),
    stages={"credit": stage(advantage, scale="batch std"), "objective": stage(clipped, mean="token")},
    unchecked="its scale acts on every mixed group, and the gate 'mixed' counts those",
    examples=(
        Credited(
            "groups 1,0 and 1,1: std of 1,0,1,1",
            [[1.0, 0.0], [1.0, 1.0]],
            [[0.5 / (STD + 1e-4), -0.5 / (STD + 1e-4)], [0, 0]],
        ),
        OffPolicy(
            "the clip; every token counts alike, whatever its answer's length",
            ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            lengths=(1, 5),
            loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 6,
            gradient=(0, -1.1 / 6, -0.5 / 6, 1.5 / 6, 0.9 / 6, 0),
        ),
        Reduction(
            "without any std, summed and on-policy it is REINFORCE",
            "reinforce",
            {"credit.scale": "off", "objective.mean": "sum"},
        ),
        Reduction(
            "with the group's std it is GRPO with a token mean",
            "grpo",
            {"credit.scale": "group std"},
            {"objective.mean": "token"},
        ),
    ),
)
