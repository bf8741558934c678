"""ReLIFT: reinforcement, interleaved with imitation of the tasks that no attempt solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.credit.group import centred, each
from etude.credit.imitate import shown
from etude.objective.hybrid import practise_and_imitate
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.testing.examples import example_advantages
from etude.types import Episode, Group, Request, Signal, Task

UNSOLVED = "no attempt solved it"


class Interleave:
    """Tasks that were never solved wait, newest first. Once enough wait, a step asks for them instead."""

    def __init__(
        self,
        size: Annotated[
            int, Setting("tasks imitated at once, at least run.tasks_per_step", "tasks", low=1)
        ] = 16,
    ) -> None:
        self.size = size
        self.waiting: list[Task] = []

    def next(self, n: int, context: Any) -> list[Request]:
        size = max(self.size, n)
        if len(self.waiting) < size:
            return [Request() for _ in range(n)]
        due, self.waiting = self.waiting[:size], self.waiting[size:]
        return [Request(task=task, why=UNSOLVED) for task in due]

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
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


def demonstrated_if_unsolved():
    """The demonstration where the task was asked for because nothing solved it, attempts otherwise."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        if rollouts.request.why == UNSOLVED:
            return [rollouts.demonstrate()]
        return await rollouts.plays(range(rollouts.samples))

    return group_rollout


def centred_or_imitated():
    """r_i - mean r for attempts; imitation of demonstrations."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return each(centred)(groups, context) + shown(groups)

    return credit


RECIPE = Recipe(
    name="relift",
    n=131,
    paper=Paper(
        "Learning What Reinforcement Learning Can't: Interleaved Online Fine-Tuning for Hardest Questions",
        "2506.07527",
        2025,
    ),
    idea="Reinforcement sharpens what the model can already do and learns nothing from tasks that no attempt solves. "
    "Such tasks wait in a buffer with their demonstrations. "
    "Whenever the buffer is full, one step imitates them, and reinforcement goes on.",
    equation="RL step: L = - sum rho (r - mean r) / (G L);  once B unsolved tasks wait, an SFT step: L = - mean_t log pi(y*_t)",
    departures=(
        "one learning rate for both kinds of step, as in the released settings (1e-6 each)",
        "guess: a task may wait again after it was imitated, but never twice at a time",
        "B is 16 and the divisor L 64 tokens by default, where the paper has 128 and 8192",
    ),
    stages={
        "curriculum": stage(Interleave),
        "group_rollout": stage(demonstrated_if_unsolved),
        "credit": stage(centred_or_imitated),
        "objective": stage(practise_and_imitate),
    },
    needs=("answer",),
    claim="The share of tasks never solved falls faster than with RL alone, with far fewer demonstrations than SFT uses.",
    examples=(
        ByHand(
            "attempts: r - mean r", lambda: example_advantages(centred_or_imitated(), [1, 0]), [0.5, -0.5]
        ),
        Reduction("while nothing waits: Dr. GRPO, on-policy", "dr_grpo", {"objective.entropy": 0.0}),
    ),
)
