"""Supervised fine-tuning on the tasks' own solutions."""

from __future__ import annotations

from typing import Any

from etude.credit.imitate import demonstrations
from etude.objective.imitation import cross_entropy
from etude.recipe import Recipe, Reduction
from etude.settings import stage
from etude.types import Episode


def shown_only():
    """Nobody plays: the demonstration is all there is."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        return [rollouts.demonstrate()]

    return group_rollout


RECIPE = Recipe(
    name="sft",
    idea="Shows the model a worked solution and makes it likelier. Nothing is sampled. "
    "The solution is the task's `reference`, or its gold answer where there is none.",
    equation="L = - mean_t log pi(y*_t)",
    stages={
        "group_rollout": stage(shown_only),
        "credit": stage(demonstrations),
        "objective": stage(cross_entropy),
    },
    needs=("answer",),
    examples=(
        Reduction(
            "HPT that imitates every task", "hpt", to_settings={"credit.gate": 1.0, "objective.entropy": 0.0}
        ),
    ),
)
