"""A second round of attempts, with a hint, where the first one failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from etude.rollout.player import Player
from etude.rollout.table import Gather, Table
from etude.settings import Setting
from etude.types import Episode, Message, Task


def hinted(number: int) -> Callable[[Task, Player], Awaitable[Episode]]:
    """One answer to the prompt with hint `number` (from 1, the vaguest) below it; training sees the prompt."""

    async def rollout(task: Task, player: Player) -> Episode:
        *before, last = task.prompt
        hint = task.hints[min(number, len(task.hints)) - 1]
        player.user((*before, Message(last.role, f"{last.content}\n\nHint: {hint}")), instead=task.prompt)
        await player.check(await player.reply())
        return player.done(guided=True)

    return rollout


def after_failure(
    hint: Annotated[int, Setting("which of the task's hints, from 1, the vaguest", low=1)] = 1,
    attempts: Annotated[float, Setting("guided attempts per failed one; 0: never", low=0, high=8)] = 1.0,
) -> Gather:
    """Every player on its own; where all of them are wrong, as many again with a hint
    (Guide, arXiv 2506.13923)."""

    async def gather(table: Table) -> list[Episode]:
        first = await table.plays(range(table.samples))
        if any(e.correct for e in first):
            return first
        seats = range(table.samples, table.samples + round(attempts * table.samples))
        return first + await table.plays(seats, hinted(hint))

    return gather
