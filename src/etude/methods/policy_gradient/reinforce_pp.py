"""REINFORCE++: rewards normalised over the whole batch, PPO's clip, no critic.

Hu et al. (arXiv 2501.03262). Credit: the reward itself, minus the mean and over the standard deviation of all
tokens of the batch (`advantage(baseline="off", scale="whitened")`). Objective: PPO's clipped surrogate, a
mean over tokens.
"""

from etude.credit.group import advantage
from etude.objective.policy import clipped
from etude.recipe import Credited, OffPolicy, Paper, Recipe
from etude.settings import stage

RECIPE = Recipe(
    name="reinforce_pp",
    paper=Paper(
        "REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
        "2501.03262",
        2025,
    ),
    idea="Drops the critic and the group: the baseline is the mean reward of the whole batch. "
    "Advantages are divided by the batch's standard deviation. Clipped like PPO.",
    equation="A = (r - mean_batch r) / std_batch r;  L = - mean_t min(rho_t A, clip(rho_t, 1-e, 1+e) A)",
    departures=(
        "the KL penalty in the reward is off by default, as its weight is 0 in most runs on checkable tasks",
    ),
    stages={
        "credit": stage(advantage, baseline="off", scale="whitened"),
        "objective": stage(clipped, mean="token"),
    },
    unchecked="its baseline and scale act on every batch whose rewards differ",
    examples=(
        Credited("two tokens of reward 1 and two of 0", [[1.0, 0.0], [1.0, 0.0]], [[1, -1], [1, -1]]),
        Credited(
            "the batch's mean, not the group's: 3 of 4 right, mean 3/4, std sqrt(3)/4",
            [[1.0, 0.0], [1.0, 1.0]],
            [[3**-0.5, -(3**0.5)], [3**-0.5, 3**-0.5]],
        ),
        OffPolicy(
            "the clip; every token counts alike, whatever its answer's length",
            ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            lengths=(1, 5),
            loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 6,
            gradient=(0, -1.1 / 6, -0.5 / 6, 1.5 / 6, 0.9 / 6, 0),
        ),
    ),
)
