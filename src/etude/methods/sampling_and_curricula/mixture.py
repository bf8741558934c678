"""A fixed mixture: kinds of tasks, or kinds at a level, are drawn with weights that never change."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from etude.curriculum.arms import ByArm
from etude.errors import UserError
from etude.fixtures.curricula import after_steps
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Recipe
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array


class Mixture(ByArm):
    """p(kind/level) proportional to w(kind) / (number of its levels) + w(kind/level)."""

    def __init__(
        self,
        weights: Annotated[
            str,
            Setting(
                "shares of kinds or arms, as sort=2,sum/0=1; what is not named gets none; empty: equal kinds"
            ),
        ] = "",
    ) -> None:
        super().__init__("both")
        self.given = parse_weights(weights)

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        names = self.given or dict.fromkeys([n.rpartition("/")[0] for n in self.arms.names], 1.0)
        self.weights = np.zeros(len(self.arms))
        for name, weight in names.items():
            found = self.arms.named(name)
            self.weights[found] += weight / len(found)

    def probabilities(self, context: Context) -> Array:
        return self.weights / self.weights.sum()


def parse_weights(text: str) -> dict[str, float]:
    """`sort=2,sum/0=1` as {name: weight}. Raises UserError where it does not read so."""
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not 0 < weight < math.inf:
            raise UserError(
                f"curriculum.weights has '{part}'; it must read KIND=WEIGHT with a weight above 0"
            )
        found[name.strip()] = weight
    return found


def _mixed(weights: str) -> list[float]:
    """The probabilities of a/0, a/1, a/2 and b/0."""
    arms = [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    return list(after_steps(RECIPE, arms, settings={"weights": weights}).report().values())


RECIPE = Recipe(
    name="mixture",
    default_base=GRPO,
    idea="Kinds of tasks are drawn with weights that you give and that never change. "
    "A kind's weight is shared evenly among its levels, or a level has a weight of its own.",
    equation="p(kind/level) = w(kind) / (number of its levels) + w(kind/level), normalised",
    departures=("without weights all kinds are equal",),
    stages={"curriculum": stage(Mixture)},
    unchecked="its weights are the user's; nothing is claimed for it",
    examples=(
        ByHand(
            "a kind and one of its levels", lambda: _mixed("a = 3, a/1=1, b=4"), [1 / 8, 2 / 8, 1 / 8, 4 / 8]
        ),
        ByHand("nothing given: equal kinds", lambda: _mixed(""), [1 / 6, 1 / 6, 1 / 6, 1 / 2]),
        ByHand("what is not named gets none", lambda: _mixed("a/0=1,a/2=3"), [0.25, 0, 0.75, 0]),
    ),
)
