"""Tasks that no attempt solved come back, all at once, to be imitated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.settings import Setting
from etude.types import Episode, Group, Request, Task

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

    async def gather(table: Any) -> list[Episode]:
        if table.request.why == UNSOLVED:
            return [table.demonstrate()]
        return await table.plays(range(table.samples))

    return gather
