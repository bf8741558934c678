"""Demonstrations and attempts of one task, one after the other or together."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from etude.rollout.demonstrate import demonstrate
from etude.rollout.player import Player
from etude.rollout.table import DEMONSTRATION, Gather, Table
from etude.settings import Setting
from etude.types import Episode, Task

Warmup = Annotated[float, Setting("share of the run that imitates before the first attempt", low=0, high=1)]


def warmed_up(warmup: Warmup = 0.2):
    """The demonstration alone while the run is younger than `warmup`, attempts alone from then on."""

    async def gather(table: Any) -> list[Episode]:
        if table.progress < warmup:
            return [table.demonstrate()]
        return await table.plays(range(table.samples))

    return gather


def beside(warmup: Warmup = 0.0):
    """The demonstration, and from `warmup` on attempts as well."""
    before = warmed_up(warmup)

    async def gather(table: Any) -> list[Episode]:
        episodes = await before(table)
        shown = any(e.demonstration for e in episodes)
        return episodes if shown else [*episodes, table.demonstrate()]

    return gather


async def judged_solution(task: Task, player: Player) -> Episode:
    """The task's own solution, judged like any other; in a world, by the world."""
    if task.world is None:
        await player.check(task.reference or task.answer or "")
    return demonstrate(task, player)


def by_the_start(
    traces: Annotated[bool, Setting("the tasks' own solutions, judged, are data as well")] = False,
) -> Gather:
    """Attempts of the policy as it was when the run began: an offline data set, read once
    (A-LoL, arXiv 2305.14718)."""

    async def gather(table: Table) -> list[Episode]:
        written = await replace(table, voice=table.voices["reference"]).plays(range(table.samples))
        return written + await table.play(DEMONSTRATION, judged_solution) if traces else written

    return gather
