"""An episode that nobody plays: the task's own solution, laid out as the policy would have written it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from etude.rollout.player import Player
from etude.types import Array, Episode, Task


def shown_only():
    """Nobody plays: the demonstration is all there is."""

    async def gather(table: Any) -> list[Episode]:
        return [table.demonstrate()]

    return gather


def demonstrate(task: Task, player: Player) -> Episode:
    """The worked solution (`reference`), or the gold answer where there is none, as tokens nobody sampled."""
    words = task.reference or task.answer
    if words is None:
        raise ValueError("the task has neither a reference nor an answer to demonstrate")
    player.user(task.prompt)
    player.prefill(answer_tokens(player.voice.renderer, words), tag="demonstration")
    return replace(player.done(), player="demonstration")


def answer_tokens(renderer: Any, words: str) -> Array:
    """int32[n]: `words` as a reply of the model's own, with the token that ends it."""
    return np.concatenate([renderer.tokenizer.encode(words), np.array(renderer.stops[:1], np.int32)])
