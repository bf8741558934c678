"""A fixed mixture of kinds and levels."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from etude.curriculum.arms import ByArm
from etude.errors import UserError
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Recipe
from etude.settings import Setting, stage
from etude.types import Array


def shares(text: str) -> dict[str, float]:
    """`sort=2,sum=1` as numbers. UserError where it does not read so."""
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


class Mixture(ByArm):
    """Arms by fixed weights."""

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
        self.given = shares(weights)

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        names = self.given or dict.fromkeys([n.rpartition("/")[0] for n in self.arms.names], 1.0)
        self.weights = np.zeros(len(self.arms))
        for name, weight in names.items():
            found = self.arms.named(name)
            self.weights[found] += weight / len(found)

    def chances(self, context: Any) -> Array:
        return self.weights / self.weights.sum()


RECIPE = Recipe(
    name="mixture",
    default_base=GRPO,
    idea="Kinds of tasks are drawn with weights that you give and that never change. "
    "A kind's weight is shared evenly among its levels, or a level has a weight of its own.",
    equation="p(kind/level) = w(kind) / (number of its levels) + w(kind/level), normalised",
    departures=("without weights all kinds are equal",),
    stages={"curriculum": stage(Mixture)},
    examples=(
        ByHand("read from text", lambda: list(shares("sort=2, sum/0=1").values()), [2, 1]),
        ByHand("nothing given", lambda: len(shares("")), 0),
    ),
)
