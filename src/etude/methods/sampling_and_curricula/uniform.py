"""Uniform sampling over arms: every kind of task at every level in turn. The baseline of every curriculum.

All arms are drawn once, in a random order, before any is drawn again (stratified sampling), so that chance favours
none of them.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from etude import seeds
from etude.curriculum.arms import ByArm, evenly
from etude.fixtures.curricula import ExampleContext, example_curriculum
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Recipe
from etude.settings import stage
from etude.stages import Context
from etude.types import Array, Request


class Stratified(ByArm):
    """Round c draws the K arms in the order of a permutation keyed by c; task number i is place i mod K of round
    i div K."""

    def probabilities(self, context: Context) -> Array:
        return evenly(np.ones(len(self.arms)))

    def next(self, n: int, context: Context) -> list[Request]:
        self.p = self.probabilities(context)
        rng, size = context.rng("arms", context.drawn), len(self.arms)
        places = [divmod(context.drawn + i, size) for i in range(n)]
        order = {
            cycle: seeds.generator(context.seed, "cycle", cycle).permutation(size) for cycle, _ in places
        }
        return [
            self.arms[int(order[cycle][place])].request(rng, f"every arm in turn, round {cycle + 1}")
            for cycle, place in places
        ]


def _counts(*pieces: int) -> list[int]:
    """How often each of three arms is drawn in steps of these sizes."""
    curriculum, drawn, found = example_curriculum(RECIPE, [("a", 0), ("a", 1), ("b", 0)]), 0, Counter[str]()
    for step, n in enumerate(pieces):
        requests = curriculum.next(n, ExampleContext(step, drawn))
        found += Counter(f"{r.kind}/{r.difficulty:g}" for r in requests)
        drawn += n
    return [found[name] for name in curriculum.arms.names]


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
    unchecked="what other curricula are compared with; nothing is claimed for it",
    examples=(
        ByHand("two rounds of three arms, in steps of 2, 2 and 2", lambda: _counts(2, 2, 2), [2, 2, 2]),
        ByHand("one round in steps of 1 and 2", lambda: _counts(1, 2), [1, 1, 1]),
    ),
)
