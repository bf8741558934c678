"""Tasks whose solution surprises the policy most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np

from etude.credit.imitate import IMITATION, imitate, tagged
from etude.curriculum.base import SourceMixture
from etude.rollout.demonstrate import DEMONSTRATED, solution
from etude.settings import Setting
from etude.stages import Context
from etude.types import Array, Request, Task


class MostSurprising(SourceMixture):
    """After the warm-up, of n / share tasks the n whose solution has the largest perplexity, those that call tools and those that do not
    ranked apart."""

    def __init__(
        self,
        hardest_share: Annotated[
            float, Setting("share of the drawn tasks that is trained on", low=0.01, high=1)
        ] = 0.3,
        hardest_from: Annotated[
            float, Setting("share of the run from which on tasks are chosen", low=0, high=1)
        ] = 0.25,
    ) -> None:
        self.share, self.begin = hardest_share, hardest_from
        self.kept, self.drawn = (
            0.0,
            0.0,
        )  # mean perplexity of the last step's tasks, and of all that were drawn for it

    def next(self, n: int, context: Context) -> list[Request]:
        if context.progress < self.begin or self.share == 1:
            return [Request() for _ in range(n)]
        number, first = math.ceil(n / self.share), math.ceil(context.drawn / self.share)
        tasks = [context.tasks.draw(Request(), first + i, context.seed) for i in range(number)]
        surprise = perplexities(tasks, context)
        ranks = np.empty(number)
        calls = np.array([bool(task.meta.get("calls")) for task in tasks])
        for kind in (calls, ~calls):
            ranks[kind] = surprise[kind].argsort().argsort() / max(1, kind.sum())
        chosen = sorted(np.argsort(-ranks, kind="stable")[:n])
        self.kept, self.drawn = float(surprise[chosen].mean()), float(surprise.mean())
        return [Request(task=tasks[i], why=f"its solution has perplexity {surprise[i]:.3g}") for i in chosen]

    def report(self) -> Mapping[str, float]:
        return {"perplexity": self.kept, "perplexity_drawn": self.drawn} if self.drawn else {}


def perplexities(tasks: Sequence[Task], context: Context) -> Array:
    """f64[n]: exp of the mean -log pi of a token of each task's solution."""
    shown = [solution(task, context.policy.renderer) for task in tasks]
    signals = [imitate(e, tagged(e, DEMONSTRATED)) for e in shown]
    rows = context.rows(signals, lambda out: out.logp)
    return np.array(
        [math.exp(-float(row[s.weights[IMITATION] > 0].mean())) for row, s in zip(rows, signals, strict=True)]
    )
