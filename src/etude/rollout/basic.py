"""The rollouts that most methods use."""

from __future__ import annotations

from typing import Annotated

from etude.rollout.player import Player
from etude.settings import Setting
from etude.types import Episode, Message, Task


def single():
    """One answer, one verdict. A task that is a world is played to its end."""

    async def rollout(task: Task, player: Player) -> Episode:
        if task.world is not None:
            return await in_world(task, player)
        player.user(task.prompt)
        await player.check(await player.reply())
        return player.done()

    return rollout


def retry(attempts: Annotated[int, Setting("answers allowed", low=1, high=16)] = 3):
    """Answer, hear what was wrong, answer again, until right or out of attempts."""

    async def rollout(task: Task, player: Player) -> Episode:
        player.user(task.prompt)
        for _ in range(attempts):
            verdict = await player.check(await player.reply())
            if verdict.correct:
                break
            player.user(verdict.feedback or "That is not right. Try again.")
        return player.done()

    return rollout


async def in_world(task: Task, player: Player) -> Episode:
    """A world is observed and acted in, turn by turn, until it gives its verdict."""
    assert task.world is not None
    world = task.world()
    opening = world.observe()
    player.user(_with(task.prompt, opening))
    while True:
        observation, verdict = world.act(await player.reply("move"))
        if verdict is not None:
            player.verdict(verdict)
            return player.done()
        player.user(observation)


def _with(prompt: tuple[Message, ...], observation: str) -> tuple[Message, ...]:
    """The observation joins the last message of the prompt: two user turns in a row break many templates."""
    *before, last = prompt
    return (*before, Message(last.role, f"{last.content}\n\n{observation}"))
