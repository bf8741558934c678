"""Reading a text with thoughts in between: before a token is read, the policy may think and guess it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.curriculum.hard_tokens import bins, spots
from etude.rollout.player import Player
from etude.settings import Setting
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


def think_and_predict(
    positions: Annotated[int, Setting("tokens per text that are thought about", "tokens", low=0)] = 1,
    start: Annotated[int, Setting("thinking budget at first", "tokens", low=1)] = 16,
    least: Annotated[int, Setting("least thinking budget", "tokens", low=1)] = 1,
    shrink: Annotated[float, Setting("share of the budget left at the end", low=0.001, high=1)] = 0.2,
    early: Annotated[float, Setting("probability of easy tokens at first", low=0, high=1)] = 0.6,
    late: Annotated[float, Setting("probability of hard tokens at last", low=0, high=1)] = 0.6,
    begin: Annotated[float, Setting("share of the run after which tokens get harder", low=0, high=1)] = 0.3,
    end: Annotated[float, Setting("share of the run after which they are hardest", low=0, high=1)] = 0.7,
    opening: Annotated[str, Setting("what opens a thought")] = "<think>",
    closing: Annotated[str, Setting("what closes a thought")] = "</think>",
):
    """At each drawn place of a text, `samples` times a thought and then one predicted token; and the text itself
    (RMT, arXiv 2509.24375)."""

    async def gather(table: Any) -> list[Episode]:
        shown = table.demonstrate()
        words = shown.spans[-1].tokens
        budget = max(least, int(start * shrink**table.progress))
        chances = bins(early, late, begin, end, table.progress)
        rng = seeds.generator(table.key, "spots")
        places = spots(table.task.meta.get("entropy"), len(words), positions, chances, rng)
        episodes = await guesses(table, words, places, budget, (opening, closing))
        return [*episodes, replace(shown, notes={**shown.notes, "spots": tuple(places)})]

    return gather
