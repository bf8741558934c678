"""Long answers in pieces: each step writes a part of every open answer, under the policy of that step.

An open answer ends a step with `stop == OPEN`. The curriculum asks for its task again, and the task itself carries
the answer, in `meta[RUNNING]`, to the gather stage that goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.rollout.player import Player
from etude.rollout.table import Gather, Table
from etude.settings import Setting
from etude.types import Episode, Group, Request, Task

OPEN = "window"
RUNNING = "running"


def stretch(share: float, before: Episode | None) -> Callable[[Task, Player], Awaitable[Episode]]:
    """The next `share` of the length limit of one answer, judged once it has ended or reached the limit.
    notes["window"]: how many tokens this step wrote."""

    async def rollout(task: Task, player: Player) -> Episode:
        limit = player.voice.params.max_tokens
        if before is None:
            player.user(task.prompt)
        else:
            player.spans = list(before.spans)
        done = sum(len(s) for s in player.spans if s.sampled)
        await player.reply(max_tokens=min(max(1, round(share * limit)), limit - done))
        words = np.concatenate([np.zeros(0, np.int32), *(s.tokens for s in player.spans if s.sampled)])
        if player.stop == "length" and done < len(words) < limit:
            player.stop = OPEN
        else:
            await player.check(player.voice.renderer.decode(words))
        return player.done(window=len(words) - done)

    return rollout


def windowed(
    window: Annotated[float, Setting("share of run.max_tokens written per step", low=0.01, high=1)] = 0.5,
) -> Gather:
    """Goes on with the task's open answers, or begins new ones."""

    async def gather(table: Table) -> list[Episode]:
        running = {e.index: e for e in table.task.meta.get(RUNNING, ())}
        seats = list(running) or range(table.samples)
        found = await asyncio.gather(*(table.play(i, stretch(window, running.get(i))) for i in seats))
        return [e for episodes in found for e in episodes]

    return gather


class Unfinished:
    """Tasks with open answers first, then the source's own mixture."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Task, tuple[Episode, ...]]] = []

    def next(self, n: int, context: Any) -> list[Request]:
        now, self.waiting = self.waiting[:n], self.waiting[n:]
        again = [
            Request(
                task=replace(task, meta={**task.meta, RUNNING: running}), samples=len(running), why="goes on"
            )
            for task, running in now
        ]
        return again + [Request()] * (n - len(again))

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        for group in groups:
            task = replace(group.task, meta={k: v for k, v in group.task.meta.items() if k != RUNNING})
            if running := tuple(replace(e, task=task) for e in group.episodes if e.stop == OPEN):
                self.waiting.append((task, running))

    def report(self) -> dict[str, float]:
        return {"open": float(sum(len(running) for _, running in self.waiting))}

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": list(self.waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = list(state["waiting"])
