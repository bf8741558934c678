"""Every kind at every level in turn: what any curriculum has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from etude import seeds
from etude.curriculum.arms import ByArm, evenly
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import Recipe
from etude.settings import stage
from etude.types import Array, Request


class Stratified(ByArm):
    """Every arm as often as every other: all of them, in an order drawn anew, again and again."""

    def chances(self, context: Any) -> Array:
        return evenly(np.ones(len(self.arms)))

    def next(self, n: int, context: Any) -> list[Request]:
        self.now = self.chances(context)
        rng, size = context.rng("arms", context.drawn), len(self.arms)
        places = [divmod(context.drawn + i, size) for i in range(n)]
        order = {
            cycle: seeds.generator(context.seed, "cycle", cycle).permutation(size) for cycle, _ in places
        }
        return [
            self.arms[int(order[c][place])].request(rng, f"every arm in turn, round {c + 1}")
            for c, place in places
        ]


RECIPE = Recipe(
    name="uniform",
    default_base=GRPO,
    idea="Every kind of task at every level comes as often as every other. "
    "All of them are drawn once, in an order made anew, before any is drawn again, so that chance favours none.",
    equation="p(c) = 1 / K, without replacement within a round of K",
    departures=(
        "the plain default draws from the mixture of the task source instead, which may weigh kinds differently",
    ),
    stages={"curriculum": stage(Stratified)},
)
