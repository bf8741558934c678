"""Reading a text with thoughts in between: before a token is read, the policy may think and guess it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.rollout.player import Player
from etude.types import Array, Episode, Message, Task, Verdict

ASK = "Continue the text. Think in at most {budget} tokens before you write the next word."


async def guesses(
    table: Any, words: Array, places: Sequence[int], budget: int, tags: tuple[str, str]
) -> list[Episode]:
    """`samples` thoughts, each with a guess, before each of the `places` of int32[n] `words`."""
    plays = [
        table.play(n * table.samples + i, think_and_guess(words, place, budget, tags))
        for n, place in enumerate(places)
        for i in range(table.samples)
    ]
    return [e for found in await asyncio.gather(*plays) for e in found]


def think_and_guess(words: Array, place: int, budget: int, tags: tuple[str, str]) -> Any:
    """A rollout: the text before `place`, a thought of at most twice the budget, one token. Right iff that is
    the text's own. Notes: `spot`, `thought` and `budget` (tokens)."""

    async def rollout(task: Task, player: Player) -> Episode:
        opening, closing = map(player.voice.renderer.tokenizer.encode, tags)
        *before, last = task.prompt
        asked = f"{last.content}\n\n{ASK.format(budget=budget)}"
        player.user((*before, Message(last.role, asked)))
        player.prefill(np.concatenate([words[:place], opening]))
        await player.reply(tag="thought", max_tokens=2 * budget)
        thought, stop = sum(len(s) for s in player.spans if s.tag == "thought"), player.stop
        player.prefill(closing)
        await player.reply(tag="guess", max_tokens=1)
        player.stop = stop
        right = player.spans[-1].tokens.tolist() == [int(words[place])]
        player.verdict(Verdict(float(right), right))
        return player.done(spot=place, thought=thought, budget=budget)

    return rollout
