"""An episode that nobody plays: the task's own solution, laid out as the policy would have written it."""

from __future__ import annotations

from typing import Any

import numpy as np

from etude.rollout.player import Player
from etude.types import Array, Episode, Task


def demonstration():
    """The worked solution (`reference`), or the gold answer where there is none."""

    async def rollout(task: Task, player: Player) -> Episode:
        return demonstrate(task, player)

    return rollout


def demonstrate(task: Task, player: Player) -> Episode:
    words = task.reference or task.answer
    if words is None:
        raise ValueError("the task has neither a reference nor an answer to demonstrate")
    player.user(task.prompt)
    player.prefill(answer_tokens(player.voice.renderer, words), tag="demonstration")
    return player.done()


def answer_tokens(renderer: Any, words: str) -> Array:
    """int32[n]: `words` as a reply of the model's own, with the token that ends it."""
    return np.concatenate([renderer.tokenizer.encode(words), np.array(renderer.stops[:1], np.int32)])
