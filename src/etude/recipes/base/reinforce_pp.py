"""REINFORCE++: rewards normalised over the whole batch, PPO's clip, no critic."""

import numpy as np

from etude.credit.group import batch_normalised, normalise
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe
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
    stages={"credit": stage(batch_normalised), "objective": stage(clipped, mean="token")},
    examples=(
        ByHand(
            "two tokens of reward 1 and two of 0", lambda: normalise(np.array([1.0, 1, 0, 0])), [1, 1, -1, -1]
        ),
    ),
)
