"""Lite PPO: two techniques are enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, centred, group_mean
from etude.credit.outcome import assigned
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def over_batch(groups: Sequence[Array], epsilon: float = 1e-4) -> list[Array]:
    """(r_i - mean of the group) / (std of all rewards + epsilon)."""
    std = np.concatenate(groups).std() if len(groups) else 0.0
    return [centred(r) / (std + epsilon) for r in groups]


def mixed_scale(
    std: Annotated[str, Setting("whose spread divides", choices=("batch", "group", "off"))] = "batch",
) -> Credit:
    """GRPO's advantage with another spread (Lite PPO, arXiv 2508.08221)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return assigned(groups, over_batch([g.rewards for g in groups]))

    return credit if std == "batch" else group_mean(std=std == "group")


RECIPE = Recipe(
    name="lite_ppo",
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
