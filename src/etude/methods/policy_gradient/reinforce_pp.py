"""REINFORCE++: rewards normalised over the whole batch, PPO's clip, no critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, each, whitened
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def raw(shift: Annotated[float, Setting("subtracted from every reward")] = 0.0) -> Credit:
    """The reward itself."""
    return each(lambda rewards: rewards - shift)


def batch_normalised() -> Credit:
    """The reward itself, whitened over all tokens of the batch."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return whitened(raw()(groups, context))

    return credit


def normalise(values: Array, epsilon: float = 1e-8) -> Array:
    """(x - mean) / (std + epsilon)."""
    return (values - values.mean()) / (values.std() + epsilon)


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
