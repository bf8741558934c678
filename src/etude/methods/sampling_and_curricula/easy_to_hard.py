"""A curriculum from easy to hard by the clock: levels open one after the other as the budget is spent.

Bengio et al., Curriculum Learning, ICML 2009.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from etude.curriculum.arms import ByArm, evenly, levels_of
from etude.errors import UserError
from etude.fixtures.curricula import ExampleContext, example_curriculum
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array


def open_levels(levels: int, progress: float, begin: float, end: float) -> int:
    """1 + floor((L - 1) clip((progress - begin) / (end - begin), 0, 1)): how many of a kind's L levels are open."""
    paced = (progress - begin) / (end - begin) if end > begin else float(progress >= end)
    return 1 + math.floor((levels - 1) * min(max(paced, 0.0), 1.0) + 1e-9)


class EasyToHard(ByArm):
    """The open arms are drawn evenly."""

    def __init__(
        self,
        begin_at: Annotated[
            float, Setting("share of the run at which levels begin to open", low=0, high=1)
        ] = 0.0,
        end_at: Annotated[
            float, Setting("share of the run at which all levels are open", low=0, high=1)
        ] = 0.5,
    ) -> None:
        super().__init__("both")
        if end_at < begin_at:
            raise UserError(
                f"curriculum.end_at is {end_at:g}; it must lie in [curriculum.begin_at, 1] = [{begin_at:g}, 1]"
            )
        self.begin_at, self.end_at = begin_at, end_at
        self.progress = 0.0  # at the last draw

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.levels = levels_of(self.arms)

    def probabilities(self, context: Context) -> Array:
        self.progress = context.progress
        is_open = np.zeros(len(self.arms))
        for found in self.levels.values():
            count = open_levels(len(found), context.progress, self.begin_at, self.end_at)
            is_open[[k for k, _ in found[:count]]] = 1
        return evenly(is_open)

    def why(self, k: int) -> str:
        return f"open at {self.progress:.0%} of the budget"


def _open(begin: float, end: float, *progress: float) -> list[int]:
    """How many of a kind's five levels are drawn at each of these shares of the run; another kind has one level."""
    arms = [*(("a", level) for level in (4, 3, 2, 1, 0)), ("b", 7)]
    curriculum = example_curriculum(RECIPE, arms, {"begin_at": begin, "end_at": end})
    counts = []
    for share in progress:
        curriculum.next(8, ExampleContext(progress=share))
        found = curriculum.report()
        assert found["b/7"] > 0, "a single level is always open"
        counts.append(sum(p > 0 for p in found.values()) - 1)
        assert found["a/0"] == found["b/7"] == 1 / (counts[-1] + 1), "the easiest is open, and all evenly"
    return counts


RECIPE = Recipe(
    name="easy_to_hard",
    default_base=GRPO,
    paper=Paper("Curriculum Learning (Bengio et al., ICML)", "", 2009),
    idea="Training starts on the easiest level of every kind. Harder levels open one after the other as the budget is spent, "
    "whatever the model has learnt by then. What is open is drawn evenly.",
    equation="open levels of a kind = 1 + floor((L - 1) clip((progress - begin_at) / (end_at - begin_at), 0, 1))",
    departures=("a linear pace over the first half of the budget; levels are the generators' own",),
    stages={"curriculum": stage(EasyToHard)},
    manipulation=(Manipulated("a share moves by 0.1", r"curriculum\.[^ ]+", 0.1, read="range"),),
    examples=(
        ByHand(
            "five levels until 1/2: at 0, 1/8 and a little less, 1/4, 1/2 and 1 of the run",
            lambda: _open(0.0, 0.5, 0, 0.124, 0.125, 0.25, 0.5, 1),
            [1, 1, 2, 3, 5, 5],
        ),
        ByHand(
            "from 0.2 until 0.6: before, at the first third, at the half, at the end",
            lambda: _open(0.2, 0.6, 0.1, 0.2, 0.3, 0.4, 0.6),
            [1, 1, 2, 3, 5],
        ),
        ByHand("begin_at = end_at: a switch", lambda: _open(0.3, 0.3, 0.29, 0.3), [1, 5]),
    ),
)
