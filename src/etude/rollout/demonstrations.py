"""Demonstrations and attempts of one task, one after the other or together."""

from __future__ import annotations

from typing import Annotated, Any

from etude.settings import Setting
from etude.types import Episode

Warmup = Annotated[float, Setting("share of the run that imitates before the first attempt", low=0, high=1)]


def warmed_up(warmup: Warmup = 0.2):
    """The demonstration alone while the run is younger than `warmup`, attempts alone from then on."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        if rollouts.progress < warmup:
            return [rollouts.demonstrate()]
        return await rollouts.plays(range(rollouts.samples))

    return group_rollout


def beside(warmup: Warmup = 0.0):
    """The demonstration, and from `warmup` on attempts as well."""
    before = warmed_up(warmup)

    async def group_rollout(rollouts: Any) -> list[Episode]:
        episodes = await before(rollouts)
        shown = any(e.demonstration for e in episodes)
        return episodes if shown else [*episodes, rollouts.demonstrate()]

    return group_rollout
