"""Demonstrations: a task's own solution as an episode, laid out as the policy would have written it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from etude import seeds
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation, Generator
from etude.tasks.settled import settled
from etude.tasks.traces import TRACE, Trace, Turn, needed
from etude.text.chat_template import Renderer
from etude.text.tool_calls import TOOL
from etude.tools.kit import ToolSession
from etude.tools.tool import Tool, ToolError
from etude.types import Array, Environment, Episode, Message, SamplingParams, Task, Verdict

DEMONSTRATED = "demonstration"  # the tag of its spans, and the name of who wrote it (`Episode.player`)


def demonstrate(task: Task, conversation: Conversation) -> Episode:
    """The worked solution (`reference`), or the gold answer where there is none, as tokens nobody sampled. In an
    environment, the replies that solve it under seed 0, each after the observation it answers; of a trace (`tasks.traces`) all
    of its turns. ValueError where the task has no solution."""
    if TRACE in task.meta:
        _traced(task, task.meta[TRACE], conversation)
        return replace(conversation.done(), player=DEMONSTRATED)
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


def _traced(task: Task, trace: Trace, conversation: Conversation) -> None:
    """The turns of a trace: replies and calls as the policy would have written them, results as tools would have given them. The
    tools that the trace names are told of, beside those of the run."""
    kit, key = conversation.generator.kit, seeds.key(conversation.key, "tools")
    there = kit.session(task, key)
    offered = list(there.tools) if there is not None else []
    if missing := needed(trace, offered):
        raise ValueError(
            f"the demonstration calls '{missing[0]}', of which neither its row ('tools') nor the run tells"
        )
    recorded = [Tool(**schema, run=_recorded) for schema in trace.tools if schema["name"] not in offered]
    conversation.session = ToolSession(kit, task, key, recorded) if recorded else there
    conversation.user(task.prompt)
    turns = list(trace.turns)
    while turns:
        turn = turns.pop(0)
        results = [Message(TOOL, turns.pop(0).text) for _ in range(_results(turns))]
        if turn.role != "assistant":
            conversation.user([Message(turn.role, turn.text), *results])
        elif turn.calls:
            _calling(turn, results, conversation)
        else:
            conversation.inject(turn.text, DEMONSTRATED)
            conversation.user(results)


def _results(turns: Sequence[Turn]) -> int:
    """How many results stand at the beginning."""
    return next((i for i, turn in enumerate(turns) if turn.role != TOOL), len(turns))


def _calling(turn: Turn, results: list[Message], conversation: Conversation) -> None:
    """Calls and their results: all at once, or, where a reply pauses at the end of a call, one after another."""
    one_by_one = bool(conversation.offer and conversation.offer.ends) and len(turn.calls) == len(results)
    pairs = (
        [([c], [r]) for c, r in zip(turn.calls, results, strict=True)]
        if one_by_one
        else [(list(turn.calls), results)]
    )
    for i, (calls, given) in enumerate(pairs):
        conversation.call(calls, turn.text if not i else "", DEMONSTRATED)
        conversation.user(given)


def _recorded(arguments: Mapping[str, Any]) -> Any:
    raise ToolError("this tool was only recorded; it is not here")


def solution(task: Task, renderer: Renderer) -> Episode:
    """`demonstrate` with a renderer alone, outside of a rollout."""
    silent = Generator(None, renderer, SamplingParams(), DEMONSTRATED)
    return demonstrate(task, Conversation(task, silent, _unchecked, 0))


async def _unchecked(task: Task, answer: str) -> Verdict:
    raise RuntimeError("a demonstration is not checked")


def answer_tokens(renderer: Renderer, words: str) -> Array:
    """int32[n]: `words` as a reply of the model's own, with the token that ends it."""
    return np.concatenate([renderer.tokenizer.encode(words), np.array(renderer.stops[:1], np.int32)])
