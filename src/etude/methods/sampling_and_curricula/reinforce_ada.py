"""Reinforce-Ada: as many attempts as a task needs until they can be told apart.

A task whose attempts all fail, or all succeed, has no group-relative signal. So every task is sampled in rounds until
its pool of attempts has what a rule asks for; a small, balanced part of the pool is trained on, against the mean of the
whole pool. Reinforce-Ada: An Adaptive Sampling Framework for Reinforce-Style LLM Training, arXiv 2510.04996.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, constant
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_episode, example_group
from etude.objective.policy import clipped
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Signal

ROUND = "round"  # note, int: the round, from 0, in which an attempt was sampled
KEPT = "kept"  # note, bool: whether an attempt is trained on


def enough(right: Sequence[bool], rule: str, n: int) -> bool:
    """Whether a pool has what `rule` asks for: "pos", a right attempt; "balance", n / 2 right and n / 2 wrong ones, of an
    odd n one more wrong one."""
    if rule == "pos":
        return any(right)
    return sum(right) >= n // 2 and len(right) - sum(right) >= n - n // 2


def balanced(right: Sequence[bool], n: int) -> list[int]:
    """Which n attempts of a pool are trained on, ascending: half right, half wrong, the earliest of each; where one side
    is short, the other fills up."""
    good = [i for i, r in enumerate(right) if r]
    poor = [i for i, r in enumerate(right) if not r]
    wrong = poor[: n - min(len(good), n // 2)]
    return sorted([*good[: n - len(wrong)], *wrong])


class Adaptive:
    """Rounds of `round_size` attempts at a task until its pool has what `rule` asks for, at most `rounds` of them. The
    group is the whole pool; n, the run's attempts per task, of it are trained on."""

    def __init__(
        self,
        rule: Annotated[
            str,
            Setting(
                "when a task has enough; pos: one right attempt, balance: half of those kept right, half wrong",
                choices=("pos", "balance"),
            ),
        ] = "balance",
        rounds: Annotated[int, Setting("most rounds per task", "rounds", low=1, high=64)] = 4,
        round_size: Annotated[int, Setting("attempts per round", "episodes", low=1)] = 8,
        right_above: Annotated[float, Setting("reward above which an attempt counts as right")] = 0.7,
    ) -> None:
        self.rule, self.rounds, self.round_size, self.right_above = rule, rounds, round_size, right_above
        self.last: dict[str, float] = {}

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        pool: list[Episode] = []
        for number in range(self.rounds):
            fresh = await rollouts.plays(range(number * self.round_size, (number + 1) * self.round_size))
            pool += [replace(e, notes={**e.notes, ROUND: number}) for e in fresh]
            if enough(self._right(pool), self.rule, rollouts.samples):
                break
        sound = [i for i, e in enumerate(pool) if e.failure is None]
        kept = {sound[i] for i in balanced(self._right(pool), rollouts.samples)}
        return [replace(e, notes={**e.notes, KEPT: i in kept}) for i, e in enumerate(pool)]

    def _right(self, pool: Sequence[Episode]) -> list[bool]:
        return [e.reward > self.right_above for e in pool if e.failure is None]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Remembers how this step's tasks were sampled."""
        pools = [g.episodes for g in groups if g.episodes and all(ROUND in e.notes for e in g.episodes)]
        first = [e.correct for pool in pools for e in pool if e.notes[ROUND] == 0]
        self.last = {}
        if not first:
            return
        got = [enough(self._right(pool), self.rule, sum(e.notes[KEPT] for e in pool)) for pool in pools]
        self.last = {
            "first_round": float(np.mean(first)),
            "rounds": float(np.mean([pool[-1].notes[ROUND] + 1 for pool in pools])),
            "resolved": float(np.mean(got)),
        }

    def report(self) -> Mapping[str, float]:
        """Of the last step: the pass rate of the first round (that of the whole pool is biased, since hard tasks are
        sampled more), rounds per task, and the share of tasks that got what the rule asks for."""
        return self.last


def pool_mean() -> Credit:
    """A_i = r_i - mean_{j in pool} r_j for the attempts that are kept; the others make no signal."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return [
            constant(episode, float(advantage))
            for group in groups
            for episode, advantage in zip(group.episodes, centred(group.rewards), strict=True)
            if episode.notes[KEPT]
        ]

    return credit


class _Scripted:
    """A group rollout of n = 4 whose attempt i earns rewards[i]."""

    samples = 4

    def __init__(self, rewards: Sequence[float]) -> None:
        self.rewards = rewards

    async def plays(self, indices: Sequence[int]) -> list[Episode]:
        return [example_episode(self.rewards[i], index=i) for i in indices]


def _pool(rewards: Sequence[float], **settings: Any) -> list[float]:
    """The index and the advantage of every attempt that is kept, then what the stage reports, of such a task."""
    adaptive = built(RECIPE, "group_rollout", settings)
    pool = asyncio.run(adaptive(_Scripted(rewards)))
    group = replace(example_group(()), episodes=tuple(pool))
    signals = built(RECIPE, "credit")([group], None)
    adaptive.observe([group], signals, None)
    found = [x for s in signals for x in (s.episode.index, float(s.advantage[0]))]
    return found + list(adaptive.report().values())


RECIPE = Recipe(
    name="reinforce_ada",
    paper=Paper(
        "Reinforce-Ada: An Adaptive Sampling Framework for Reinforce-Style LLM Training", "2510.04996", 2025
    ),
    published_lr=1e-6,
    idea="A task whose attempts all fail, or all succeed, teaches nothing. "
    "So tasks are sampled in rounds, and one that has shown enough right and enough wrong attempts gets no more. "
    "A small, balanced part of its pool is trained on, against the mean of the whole pool.",
    equation="A_i = r_i - mean_{j in pool} r_j for the n kept;  L = - sum_it min(rho A, clip(rho, 1-0.2, 1+0.28) A) / sum_i |y_i|",
    departures=(
        "the bonus on entropy (1e-4 in the paper, 0 in the script) is left out",
        "the run's reward and pass rate are those of all attempts, of which hard tasks have more: group_rollout/first_round is unbiased",
        "it replaces group_rollout, credit and objective, so it goes with recipes that choose tasks or play them, not with other losses",
    ),
    stages={
        "group_rollout": stage(Adaptive),
        "credit": stage(pool_mean),
        "objective": stage(clipped, clip_high=0.28, mean="token"),
    },
    defaults={"group_size": 4},
    claim="The share of tasks without a gradient falls and accuracy rises faster than with four attempts at every task.",
    manipulation=(Manipulated("a task in five takes a second round", r"group_rollout\.rounds", 1.2),),
    examples=(
        ByHand(
            "pos, 1 right of 8: one round, the right one and the first three wrong ones",
            lambda: _pool([0, 0, 0, 0, 0, 1, 0, 0], rule="pos"),
            [0, -0.125, 1, -0.125, 2, -0.125, 5, 0.875, 1 / 8, 1, 1],
        ),
        ByHand(
            "5 right of 8: the first two of each",
            lambda: _pool([1, 1, 1, 0, 0, 1, 0, 1]),
            [0, 0.375, 1, 0.375, 3, -0.625, 4, -0.625, 5 / 8, 1, 1],
        ),
        ByHand(
            "pos, rounds of two, right in the third; 0.7 does not count as right",
            lambda: _pool([0, 0.7, 0, 0, 0.8, 0, 1], round_size=2, rule="pos"),
            [0, -0.25, 1, 0.45, 2, -0.25, 4, 0.55, 1 / 2, 3, 1],
        ),
        ByHand(
            "two of each after four rounds of two; of the first round all were right",
            lambda: _pool([1, 1, 1, 1, 1, 0, 1, 0], round_size=2),
            [0, 0.25, 1, 0.25, 5, -0.75, 7, -0.75, 1, 4, 1],
        ),
        ByHand(
            "1 right of 8, then 7 of 8: the second round brings the second right one",
            lambda: _pool([0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0])[-3:],
            [1 / 8, 2, 1],
        ),
        ByHand(
            "never right: given up after two rounds, not resolved",
            lambda: _pool([0] * 4, round_size=2, rounds=2),
            [0, 0, 1, 0, 2, 0, 3, 0, 0, 2, 0],
        ),
        OffPolicy(
            "praise beyond 1.28, between 1.2 and 1.28; blame below 0.8, above: over all tokens of two episodes",
            ratio=(1.5, 1.25, 0.5, 0.9),
            advantage=(1.0, 1.0, -1.0, -1.0),
            lengths=(3, 1),
            loss=(-1.28 - 1.25 + 0.8 + 0.9) / 4,
            gradient=(0, -1.25 / 4, 0, 0.9 / 4),
        ),
        Reduction(
            "one round of n attempts: GRPO without std",
            "grpo",
            {"group_rollout.rounds": 1, "group_rollout.round_size": 4},
            {"credit.scale": "off", "objective.mean": "token"},
        ),
    ),
)
