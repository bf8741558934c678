"""Which tokens of a text are worth thinking about: scored once by entropy, drawn from easy to hard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from etude.credit.imitate import imitate, tagged
from etude.curriculum.sampler import Uniform
from etude.rollout.demonstrate import solution
from etude.types import Array, Request


class Scored(Uniform):
    """The task source's own tasks, each with the entropies of its text under the model the run began with
    (`meta["entropy"]`, one per token)."""

    def next(self, n: int, context: Any) -> list[Request]:
        tasks = [context.tasks.draw(Request(), context.drawn + i, context.seed) for i in range(n)]
        shown = [solution(task, context.policy.renderer) for task in tasks]
        signals = [imitate(e, tagged(e, "demonstration")) for e in shown]
        model = context.companions["reference"]
        rows = context.rows(signals, lambda out: out.entropy, {"entropy"}, policy=model)
        found = [row[s.weights["imitation"] != 0] for row, s in zip(rows, signals, strict=True)]
        return [
            Request(task=replace(t, meta={**t.meta, "entropy": e})) for t, e in zip(tasks, found, strict=True)
        ]


def bins(early: float, late: float, begin: float, end: float, progress: float) -> Array:
    """Probabilities of easy, medium and hard: (early, rest) until `begin`, (rest, late) from `end`, linear between."""
    first = np.array([early, (1 - early) / 2, (1 - early) / 2])
    last = np.array([(1 - late) / 2, (1 - late) / 2, late])
    part = float(np.clip((progress - begin) / max(end - begin, 1e-9), 0, 1))
    return (1 - part) * first + part * last


def spots(
    entropy: Array | None, length: int, number: int, chances: Array, rng: np.random.Generator
) -> list[int]:
    """Up to `number` places in a text of `length` tokens, ascending: a third of the text ranked by entropy is
    drawn, then a token within it; any token alike where no entropies are known."""
    third = rng.choice(3, size=number, p=chances)
    rank = ((third + rng.random(number)) / 3 * length).astype(int)
    order = rng.permutation(length) if entropy is None else np.argsort(entropy, kind="stable")
    return sorted({int(order[r]) for r in rank})
