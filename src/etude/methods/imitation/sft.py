"""Supervised fine-tuning: cross-entropy on the tasks' own solutions. Nothing is sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence

from etude.channels import writes
from etude.credit.imitate import IMITATION, shown
from etude.fixtures.given import (
    GivenContext,
    beyond_prompt,
    example_answers,
    example_demonstration,
    given_stage,
)
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.settings import stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Episode, Group, Signal


def demonstration_only() -> GroupRolloutStage:
    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        return [rollouts.demonstrate()]

    return group_rollout


@writes(IMITATION)
def demonstrations_alone() -> Credit:
    """Imitation of the demonstrations; attempts teach nothing."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return shown(groups)

    return credit


RECIPE: Recipe = Recipe(
    name="sft",
    idea="Shows the model a worked solution and makes it likelier. Nothing is sampled. "
    "The solution is the task's `reference`, or its gold answer where there is none.",
    equation="L = - mean_t log pi(y*_t)",
    stages={
        "group_rollout": stage(demonstration_only),
        "credit": stage(demonstrations_alone),
        "objective": stage(cross_entropy),
    },
    needs=("answer",),
    manipulation=(Manipulated("every task is demonstrated", "demonstrated", 0.99),),
    examples=(
        ByHand(
            "of a wrong attempt and a demonstration, the demonstration",
            lambda: beyond_prompt(
                given_stage(RECIPE, "credit")(
                    [example_answers((0.0, (5, 6)), demonstrations=[example_demonstration((7, 8, 9))])],
                    GivenContext(),
                ),
                IMITATION,
            ),
            [1, 1, 1],
        ),
        OffPolicy(
            "log pi = -1 + ln 2 and -1 - ln 2; a third token is not imitated",
            ratio=(2.0, 0.5, 3.0),
            advantage=(0.0, 0.0, 0.0),
            weights={IMITATION: (1.0, 1.0, 0.0)},
            loss=((1 - math.log(2)) + (1 + math.log(2))) / 2,
            gradient=(-1 / 2, -1 / 2, 0.0),
        ),
        Reduction(
            "HPT that imitates every task",
            "hpt",
            to_settings={"credit.gate": 1.0, "objective.entropy_weight": 0.0},
        ),
    ),
)
