"""Reinforce-Ada: as many attempts as a task needs until they can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, centred, constant
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal


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


def _kept(pool: Sequence[Episode]) -> int:
    return sum(e.notes["kept"] for e in pool)


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

    async def __call__(self, rollouts: Any) -> list[Episode]:
        pool: list[Episode] = []
        for number in range(self.rounds):
            seats = range(number * self.size, (number + 1) * self.size)
            fresh = await rollouts.plays(seats)
            pool += [replace(e, notes={**e.notes, "round": number}) for e in fresh]
            if enough(self._right(pool), self.rule, rollouts.samples):
                break
        sound = [i for i, e in enumerate(pool) if e.failure is None]
        kept = {sound[i] for i in chosen(self._right(pool), rollouts.samples)}
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


def pool_mean() -> Credit:
    """r_i - mean of the whole pool, for the attempts that are kept (notes `kept`); the others teach nothing and count
    in no mean (Reinforce-Ada, arXiv 2510.04996)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return [
            constant(episode, float(advantage))
            for group in groups
            for episode, advantage in zip(group.episodes, centred(group.rewards), strict=True)
            if episode.notes["kept"]
        ]

    return credit


def _kept_advantages(*pool: float) -> list[float]:
    """The advantages of the four attempts of a pool that are kept."""
    return centred(np.array(pool))[chosen([r > 0.7 for r in pool], 4)].tolist()


RECIPE = Recipe(
    name="reinforce_ada",
    n=94,
    paper=Paper(
        "Reinforce-Ada: An Adaptive Sampling Framework for Reinforce-Style LLM Training", "2510.04996", 2025
    ),
    idea="A task whose attempts all fail, or all succeed, teaches nothing. "
    "So tasks are sampled in rounds, and one that has shown a right attempt gets no more. "
    "A small, balanced part of its pool is trained on, against the mean of the whole pool.",
    equation="A_i = r_i - mean_{j in pool} r_j for the n kept;  L = - sum_it min(rho A, clip(rho, 1-0.2, 1+0.28) A) / sum_i |y_i|",
    departures=(
        "guess: of each side the attempts sampled first are kept",
        "the bonus on entropy (1e-4 in the paper, 0 in the script) is left out",
        "the run's reward and pass rate are those of all attempts, of which hard tasks have more: gather/first_round is unbiased",
        "it replaces gather, credit and objective, so it goes with recipes that choose tasks or play them, not with other losses",
    ),
    stages={
        "group_rollout": stage(Adaptive),
        "credit": stage(pool_mean),
        "objective": stage(clipped, clip_high=0.28, mean="token"),
    },
    defaults={"group_size": 4},
    claim="The share of tasks without a gradient falls and accuracy rises faster than with four attempts at every task.",
    examples=(
        ByHand(
            "1 right of 8, four kept",
            lambda: _kept_advantages(0, 0, 0, 0, 0, 1, 0, 0),
            [-0.125] * 3 + [0.875],
        ),
        ByHand("5 right of 8", lambda: _kept_advantages(1, 1, 1, 0, 0, 1, 0, 1), [0.375] * 2 + [-0.625] * 2),
        Reduction(
            "one round of n attempts: GRPO without std",
            "grpo",
            {"group_rollout.rounds": 1, "group_rollout.size": 4},
            {"credit.scale": "off", "objective.mean": "token"},
        ),
    ),
)
