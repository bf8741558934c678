"""New problems where the policy is weak, written by a model in the form of one that it fails at."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.curriculum.weakness import WHY
from etude.rollout.attempts import answer_of, reworded
from etude.rollout.player import Failed
from etude.rollout.second import worded
from etude.rollout.speakers import Address, Longest, Speaker, Who
from etude.settings import Setting
from etude.tasks.posed import by_majority, worked_out
from etude.types import Episode, Group, Task

WRITER = 1 << 19  # the seat of who writes; those who vote on the answer sit behind
WRITE = "{question}\n\nWrite another problem of this kind. Write nothing else."


class Written:
    """Where the curriculum asks for a weak kind, the task that it drew is an example: `writer` writes another like it,
    whose answer is computed, or, where it cannot be, what `least` of `votes` answers of the writer agree on. Where
    that yields no task, the example itself is played. What is written is paid for and never trained."""

    def __init__(
        self,
        writer: Who = "policy",
        votes: Annotated[int, Setting("answers that vote; 0: only what can be computed", low=0)] = 8,
        least: Annotated[int, Setting("votes that an answer needs", low=1)] = 4,
        ask: Annotated[str, Setting("how a problem is asked for")] = WRITE,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.speaker = Speaker(writer, address, longest)
        self.reads = self.speaker.reads
        self.votes, self.least, self.ask = votes, least, worded(ask, "question")
        self.seen: dict[str, float] = {}

    async def __call__(self, table: Any) -> list[Episode]:
        if table.request.why == WHY:
            try:
                task = await self._write(table)
            except Failed:
                task = None
            if task is not None and table.admits(task):
                table.task = task
        episodes: list[Episode] = await table.plays(range(table.samples))
        return episodes

    async def _write(self, table: Any) -> Task | None:
        example: Task = table.task
        asked = reworded(example.prompt, self.ask.format(question=example.prompt[-1].content))
        text = await self.speaker.words(table.player(WRITER), asked)
        task = worked_out(example, text)
        if task is not None or not self.votes or not hasattr(example.check, "extract"):
            return task
        posed = reworded(example.prompt, text.strip())
        said = await asyncio.gather(
            *(self.speaker.words(table.player(WRITER + 1 + i), posed) for i in range(self.votes))
        )
        return by_majority(example, text, [answer_of(example, answer) for answer in said], self.least)

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        """Remembers how much of what was asked for was written."""
        asked = [g for g in groups if g.request.why == WHY]
        self.seen = {"written": float(np.mean(["written" in g.task.meta for g in asked]))} if asked else {}

    def report(self) -> dict[str, float]:
        """Of the last step: the share of tasks for weak kinds that were written, not drawn."""
        return self.seen
