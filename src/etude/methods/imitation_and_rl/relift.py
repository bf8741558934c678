"""ReLIFT (arXiv 2506.07527): reinforcement, interleaved with imitation. Tasks that no attempt solved wait in a buffer;
whenever it is full, one step imitates their demonstrations instead."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Any

from etude.channels import writes
from etude.credit.group import centred, each
from etude.credit.imitate import IMITATION, shown
from etude.fixtures.given import (
    GivenContext,
    beyond_prompt,
    example_answers,
    example_demonstration,
    given_stage,
)
from etude.objective.hybrid import practise_and_imitate
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Episode, Group, Request, Signal, Task
from etude.update import Update

IMITATE = "imitate"  # the purpose of requests for a demonstration


class Interleave:
    """Tasks that were tried and never solved wait, newest first. Once enough wait, a step asks for their
    demonstrations."""

    def __init__(
        self,
        buffer_size: Annotated[
            int, Setting("B, tasks imitated at once, at least run.tasks_per_step", "tasks", low=1)
        ] = 16,
    ) -> None:
        self.buffer_size = buffer_size
        self.waiting: list[Task] = []

    def next(self, n: int, context: Context) -> list[Request]:
        size = max(self.buffer_size, n)
        if len(self.waiting) < size:
            return [Request() for _ in range(n)]
        due, self.waiting = self.waiting[:size], self.waiting[size:]
        return [Request(task=task, purpose=IMITATE, why="no attempt solved it") for task in due]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        known = {task.key for task in self.waiting}
        for group in groups:
            tried = group.episodes and not group.failed
            if tried and group.task.key not in known and not any(e.correct for e in group.episodes):
                self.waiting.insert(0, group.task)
                known.add(group.task.key)

    def report(self) -> dict[str, float]:
        return {"waiting": float(len(self.waiting))}

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": list(self.waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = list(state["waiting"])


def demonstration_if_unsolved() -> GroupRolloutStage:
    """The demonstration where the task was asked for because nothing solved it, attempts otherwise."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        if rollouts.request.purpose == IMITATE:
            return [rollouts.demonstrate()]
        return await rollouts.plays(range(rollouts.samples))

    return group_rollout


@writes("policy", IMITATION)
def centred_or_imitated() -> Credit:
    """r_i - mean r for attempts; imitation of demonstrations."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return each(centred)(groups, context) + shown(groups)

    return credit


@dataclass(frozen=True)
class TwoOptimisers(Update):
    """AdamW, with moments of their own for the steps that imitate: what one kind of step has learned of its gradient's
    size and direction says nothing about the other."""

    def moments(self, rows: Set[str]) -> str:
        return IMITATION if rows == {IMITATION} else super().moments(rows)


def _purposes(*rewards: float) -> list[int]:
    """What a buffer of one task asks for at three steps (1: a demonstration), if these attempts came before."""
    curriculum = given_stage(RECIPE, "curriculum", buffer_size=1)
    curriculum.observe([example_answers(*((r, (2,)) for r in rewards))] * 2, [], GivenContext())
    requests = [curriculum.next(1, GivenContext()) for _ in range(3)]
    return [sum(r.purpose == IMITATE for r in step) for step in requests]


def _rows() -> list[list[float]]:
    tried = example_answers((1.0, (2,)), (0.0, (3,)))
    due = example_answers(demonstrations=[example_demonstration((4, 5))])
    signals = given_stage(RECIPE, "credit")([tried, due], GivenContext())
    return [beyond_prompt(signals, name) for name in ("advantage", IMITATION)]


RECIPE = Recipe(
    name="relift",
    paper=Paper(
        "Learning What Reinforcement Learning Can't: Interleaved Online Fine-Tuning for Hardest Questions",
        "2506.07527",
        2025,
    ),
    published_lr=1e-6,
    idea="Reinforcement sharpens what the model can already do and learns nothing from tasks that no attempt solves. "
    "Such tasks wait in a buffer with their demonstrations. "
    "Whenever the buffer is full, one step imitates them, and reinforcement goes on.",
    equation="RL step: L = - mean over tasks of sum_i sum_t rho (r_i - mean r) / L;  once B unsolved tasks wait, an SFT step: "
    "L = - mean_t log pi(y*_t); AdamW's moments are kept apart for the two",
    departures=(
        "one learning rate for both kinds of step, as in the released settings (1e-6 each), and one bound of the gradient's "
        "norm, where those have 0.7 and 1.0",
        "an SFT step takes the place of an RL step, where the released code does it after one",
        "guess: a task may wait again after it was imitated, but never twice at a time",
        "B is 16 and the divisor L 64 tokens by default, where the paper has 128 and 8192",
    ),
    stages={
        "curriculum": stage(Interleave),
        "group_rollout": stage(demonstration_if_unsolved),
        "credit": stage(centred_or_imitated),
        "objective": stage(practise_and_imitate),
        "update": stage(TwoOptimisers),
    },
    needs=("answer",),
    claim="The share of tasks never solved falls faster than with RL alone, with far fewer demonstrations than SFT uses.",
    manipulation=(Manipulated("one step in twenty imitates", "demonstrated", 0.05),),
    examples=(
        ByHand("no attempt was right: one imitation, once", lambda: _purposes(0.0, 0.0), [1, 0, 0]),
        ByHand("one of two was right: none", lambda: _purposes(0.0, 1.0), [0, 0, 0]),
        ByHand("r - mean r, and a demonstration of 2 tokens", _rows, [[0.5, -0.5, 0, 0], [0, 0, 1, 1]]),
        # Three tasks. Policy: (-1.5 + 0.25) / 10. Imitation: 1 - ln 2. Entropy: -(0.6 + 0.4 + 2) / 3 / 10.
        OffPolicy(
            "ratios of 1.5 and 1/4 unclipped, over a constant length; all tasks count alike",
            ratio=(1.5, 0.25, 2.0),
            advantage=(1.0, -1.0, 0.0),
            lengths=(1, 1, 1),
            weights={"policy": (1, 1, 0), IMITATION: (0, 0, 1)},
            entropy=(0.6, 0.4, 2.0),
            loss=((-1.5 + 0.25) / 10 + 1 - math.log(2)) / 3 - 0.1 * 3.0 / 3,
            gradient=(-1.5 / 10 / 3, 0.25 / 10 / 3, -1 / 3),
            settings={"objective.length_divisor": 10.0, "objective.entropy_weight": 0.1},
        ),
        Reduction(
            "while nothing waits: Dr. GRPO, on-policy, summed over the attempts at a task (4) where that takes their mean",
            "dr_grpo",
            {"objective.entropy_weight": 0.0},
            scale=4.0,
        ),
    ),
)
