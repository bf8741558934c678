"""Attempts that the demonstration begins and the policy finishes."""

from __future__ import annotations

import math
from typing import Annotated, Any

from etude import seeds
from etude.rollout.player import Player
from etude.settings import Setting
from etude.types import Episode, Task


def given_share(uniform: float, low: float, high: float, progress: float) -> float:
    """l ~ Uniform(low_t, high), low_t falling by a cosine from high at the start to low at the end."""
    least = low + (high - low) * (1 + math.cos(math.pi * progress)) / 2
    return least + (high - least) * uniform


def one_prefixed(
    low: Annotated[
        float, Setting("least share of the demonstration given, at the end", low=0, high=1)
    ] = 0.05,
    high: Annotated[float, Setting("greatest share of the demonstration given", low=0, high=0.999)] = 0.95,
):
    """Ordinary attempts, and as the last one the policy's continuation of a demonstration's first part
    (arXiv 2507.01679)."""

    async def gather(table: Any) -> list[Episode]:
        uniform = seeds.generator(table.key, "prefix").random()
        words = table.demonstrate().spans[-1].tokens
        cut = int(given_share(uniform, min(low, high), high, table.progress) * len(words))

        async def continued(task: Task, player: Player) -> Episode:
            player.user(task.prompt)
            player.prefill(words[:cut])
            await player.check(await player.reply())
            return player.done()

        last = table.samples - 1
        ordinary = await table.plays(range(last))
        return [*ordinary, *await table.play(last, continued)]

    return gather
