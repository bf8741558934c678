"""From easy to hard, by the clock."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from etude.curriculum.arms import ByArm, evenly
from etude.curriculum.fixed import levels_of
from etude.errors import UserError
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import Setting, stage
from etude.types import Array


def opened(levels: int, progress: float, begin: float, end: float) -> int:
    """How many of a kind's levels are open: 1 until `begin`, all from `end`, linear between."""
    share = (progress - begin) / (end - begin) if end > begin else float(progress >= end)
    return 1 + math.floor((levels - 1) * min(max(share, 0.0), 1.0) + 1e-9)


class EasyToHard(ByArm):
    """Levels open as the budget is spent; what is open is drawn evenly."""

    def __init__(
        self,
        begin: Annotated[
            float, Setting("progress until which only the easiest level is open", low=0, high=1)
        ] = 0.0,
        end: Annotated[float, Setting("progress from which all levels are open", low=0, high=1)] = 0.5,
    ) -> None:
        super().__init__("both")
        if end < begin:
            raise UserError(
                f"curriculum.end is {end:g}; it must lie in [curriculum.begin, 1] = [{begin:g}, 1]"
            )
        self.begin, self.end = begin, end

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.levels = levels_of(self.arms)

    def chances(self, context: Any) -> Array:
        chosen = np.zeros(len(self.arms))
        self.words = f"open at {context.progress:.0%} of the budget"
        for _, found in self.levels:
            for k, _ in found[: opened(len(found), context.progress, self.begin, self.end)]:
                chosen[k] = 1
        return evenly(chosen)

    def why(self, k: int) -> str:
        return self.words


RECIPE = Recipe(
    name="easy_to_hard",
    default_base=GRPO,
    paper=Paper("Curriculum Learning (Bengio et al., ICML)", "", 2009),
    idea="Training starts on the easiest level of every kind. Harder levels open one after the other as the budget is spent, "
    "whatever the model has learnt by then. What is open is drawn evenly.",
    equation="open levels of a kind = 1 + floor((L - 1) clip((progress - begin) / (end - begin), 0, 1))",
    departures=("a linear pace over the first half of the budget; levels are the generators' own",),
    stages={"curriculum": stage(EasyToHard)},
    examples=(
        ByHand(
            "five levels at 0, 1/8, 1/4, 1/2 of the budget",
            lambda: [opened(5, p, 0, 0.5) for p in (0, 0.125, 0.25, 0.5)],
            [1, 2, 3, 5],
        ),
        ByHand("begin = end: a switch", lambda: [opened(5, p, 0.3, 0.3) for p in (0.29, 0.3)], [1, 5]),
        ByHand("a single level is always open", lambda: [opened(1, p, 0, 1) for p in (0, 1)], [1, 1]),
    ),
)
