"""Sampling a task in rounds, until its attempts have something to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.settings import Setting
from etude.types import Episode, Group


def enough(right: Sequence[bool], rule: str, kept: int) -> bool:
    """Whether a pool has what `rule` asks for: "pos", a right attempt; "balance", kept / 2 right and as many wrong."""
    if rule == "pos":
        return any(right)
    return min(sum(right), len(right) - sum(right)) >= kept / 2


def chosen(right: Sequence[bool], kept: int) -> list[int]:
    """Which attempts of a pool are trained on, ascending: half right, half wrong, the earliest of each; where one side
    is short, the other fills up."""
    good = [i for i, r in enumerate(right) if r]
    poor = [i for i, r in enumerate(right) if not r]
    wrong = poor[: kept - min(len(good), kept // 2)]
    return sorted([*good[: kept - len(wrong)], *wrong])


class Adaptive:
    """Rounds of `size` attempts at a task until its pool has what `rule` asks for, at most `rounds` of them. The group
    is the whole pool; notes `kept` say which of it are trained on (as many as the run's attempts), notes `round` when
    each was sampled."""

    def __init__(
        self,
        rule: Annotated[
            str,
            Setting(
                "when a task has enough; pos: one right attempt, balance: half of those kept right, half wrong",
                choices=("pos", "balance"),
            ),
        ] = "pos",
        rounds: Annotated[int, Setting("most rounds per task", "rounds", low=1, high=64)] = 4,
        size: Annotated[int, Setting("attempts per round", "episodes", low=1)] = 8,
        bar: Annotated[float, Setting("reward above which an attempt counts as right")] = 0.7,
    ) -> None:
        self.rule, self.rounds, self.size, self.bar = rule, rounds, size, bar
        self.seen: dict[str, float] = {}

    async def __call__(self, table: Any) -> list[Episode]:
        pool: list[Episode] = []
        for number in range(self.rounds):
            seats = range(number * self.size, (number + 1) * self.size)
            fresh = await table.plays(seats)
            pool += [replace(e, notes={**e.notes, "round": number}) for e in fresh]
            if enough(self._right(pool), self.rule, table.samples):
                break
        sound = [i for i, e in enumerate(pool) if e.failure is None]
        kept = {sound[i] for i in chosen(self._right(pool), table.samples)}
        return [replace(e, notes={**e.notes, "kept": i in kept}) for i, e in enumerate(pool)]

    def _right(self, pool: Sequence[Episode]) -> list[bool]:
        return [e.reward > self.bar for e in pool if e.failure is None]

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        """Remembers how the last step's tasks were sampled."""
        pools = [g.episodes for g in groups if g.episodes and all("round" in e.notes for e in g.episodes)]
        first = [e.correct for pool in pools for e in pool if e.notes["round"] == 0]
        self.seen = {}
        if not first:
            return
        self.seen = {
            "first_round": float(np.mean(first)),
            "rounds": float(np.mean([pool[-1].notes["round"] + 1 for pool in pools])),
            "resolved": float(np.mean([enough(self._right(p), self.rule, _kept(p)) for p in pools])),
        }

    def report(self) -> dict[str, float]:
        """Of the last step: the pass rate of the first round (of the whole pool it is biased, since hard tasks are
        sampled more), rounds per task, and the share of tasks that got what the rule asks for."""
        return self.seen


def _kept(pool: Sequence[Episode]) -> int:
    return sum(e.notes["kept"] for e in pool)
