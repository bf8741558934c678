"""Demonstrations: a task's own solution as an episode, laid out as the policy would have written it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from etude import seeds
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation, Generator
from etude.tasks.settled import settled
from etude.text.chat_template import Renderer
from etude.types import Array, Environment, Episode, SamplingParams, Task, Verdict

DEMONSTRATED = "demonstration"  # the tag of its spans, and the name of who wrote it (`Episode.player`)


def demonstrate(task: Task, conversation: Conversation) -> Episode:
    """The worked solution (`reference`), or the gold answer where there is none, as tokens nobody sampled. In an
    environment, the replies that solve it under seed 0, each after the observation it answers. ValueError where the
    task has no solution."""
    words = task.reference or task.answer
    if words is None:
        raise ValueError("the task has neither a reference nor an answer to demonstrate")
    if task.environment is not None:
        _through(task, conversation.play(task.environment, 0), words.splitlines(), conversation)
    else:
        conversation.user(task.prompt)
        conversation.inject(words, DEMONSTRATED)
    return replace(conversation.done(), player=DEMONSTRATED)


def _through(task: Task, environment: Environment, lines: list[str], conversation: Conversation) -> None:
    """Replies as the environment itself knows them, else the `lines` of the reference, as calls where it says so (`as_call`);
    its verdict is the episode's."""
    conversation.session = tools = conversation.generator.kit.session(
        task, seeds.key(conversation.key, "tools"), environment
    )
    conversation.user(below(task.prompt, settled(environment.observe())))
    replies = environment.solve() if hasattr(environment, "solve") else lines
    as_call = getattr(environment, "as_call", None)
    for reply in replies:
        call = as_call(reply) if tools is not None and as_call is not None else None
        if tools is not None and call is not None:
            conversation.call([call], tag=DEMONSTRATED)
            results = settled(tools.answer([call], last=False))
            if not tools.over:
                conversation.user(results)
                continue
        else:
            conversation.inject(reply, DEMONSTRATED)
        said, verdict = settled(environment.act(reply))
        if verdict is not None:
            conversation.verdict(verdict)
            return
        conversation.user(said)


def solution(task: Task, renderer: Renderer) -> Episode:
    """`demonstrate` with a renderer alone, outside of a rollout."""
    silent = Generator(None, renderer, SamplingParams(), DEMONSTRATED)
    return demonstrate(task, Conversation(task, silent, _unchecked, 0))


async def _unchecked(task: Task, answer: str) -> Verdict:
    raise RuntimeError("a demonstration is not checked")


def answer_tokens(renderer: Renderer, words: str) -> Array:
    """int32[n]: `words` as a reply of the model's own, with the token that ends it."""
    return np.concatenate([renderer.tokenizer.encode(words), np.array(renderer.stops[:1], np.int32)])
