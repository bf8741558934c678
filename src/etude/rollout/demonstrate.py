"""An episode that nobody plays: the task's own solution, laid out as the policy would have written it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation, Generator
from etude.types import Array, Environment, Episode, SamplingParams, Task, Verdict

SHOWN = "demonstration"  # the tag of its spans, and who plays it


def demonstrate(task: Task, conversation: Conversation) -> Episode:
    """The worked solution (`reference`), or the gold answer where there is none, as tokens nobody sampled. Of a world,
    the replies that win under luck 0, each after what it answers to."""
    words = task.reference or task.answer
    if words is None:
        raise ValueError("the task has neither a reference nor an answer to demonstrate")
    if task.environment is not None:
        _through(task, task.environment(0), words.splitlines(), conversation)
    else:
        conversation.user(task.prompt)
        conversation.inject(words, SHOWN)
    return replace(conversation.done(), player=SHOWN)


def _through(task: Task, environment: Environment, lines: list[str], conversation: Conversation) -> None:
    """Replies as the world itself knows them, else the `lines` of the reference; its verdict is the player's."""
    conversation.user(below(task.prompt, environment.observe()))
    replies = environment.solve() if hasattr(environment, "solve") else lines
    for reply in replies:
        conversation.inject(reply, SHOWN)
        said, verdict = environment.act(reply)
        if verdict is not None:
            conversation.verdict(verdict)
            return
        conversation.user(said)


def solution(task: Task, renderer: Any) -> Episode:
    """The same with a renderer alone, where nobody plays."""
    silent = Generator(None, renderer, SamplingParams(), SHOWN)
    return demonstrate(task, Conversation(task, silent, _nobody, 0))


async def _nobody(task: Task, answer: str) -> Verdict:
    raise RuntimeError("a demonstration is not judged")


def answer_tokens(renderer: Any, words: str) -> Array:
    """int32[n]: `words` as a reply of the model's own, with the token that ends it."""
    return np.concatenate([renderer.tokenizer.encode(words), np.array(renderer.stops[:1], np.int32)])
