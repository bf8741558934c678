"""A method of inference behind `ask` and `serve`: a conversation goes in, the answer comes out when it is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etude.errors import UserError
from etude.evaluate.inference import Played, played
from etude.rollout.basic import single
from etude.rollout.conversation import Conversation, Generator
from etude.search.session import spent_of
from etude.serve.api import Wanted
from etude.serve.replies import Piece, Speaker
from etude.tasks.answer_places import bare, folded, places
from etude.tools.kit import CALLS, Kit
from etude.types import Episode, Message, SamplingParams, Task, Verdict


def usable(expression: str) -> Played:
    """The method of this name. UserError for an oracle, which has nobody to ask here, and for one that asks a second model."""
    method = played(expression)
    if method.oracle:
        raise UserError(f"{method.name} asks the checker; nobody can tell it here what is right")
    if method.rollout.reads:
        raise UserError(
            f"{method.name} asks a second model, which is not there; `etude eval --with` names one by run.teacher"
        )
    return method


class Unjudged:
    """In the place of a checker where nobody knows the answer. `read`: what votes compare."""

    def __call__(self, answer: str) -> Verdict:
        return Verdict(0.0, False)

    def blank(self) -> Unjudged:
        return self

    def read(self, answer: str) -> str | None:
        """The last place at which an answer is given, in small letters; None where a reply says nothing."""
        found = list(places(answer))
        return folded(bare(found[0].text)) if found else folded(answer) or None


async def _check(task: Task, answer: str) -> Verdict:
    return task.check(answer)


async def answer(
    speaker: Speaker,
    method: Played | None,
    messages: Sequence[Message],
    params: SamplingParams,
    key: int,
    kit: Kit | None = None,
) -> tuple[str, dict[str, Any]]:
    """The answer's text, and what it cost: {"flops", "tokens", "models", ...}, and {"calls"} where tools of `kit` could be
    called. Without a method it is a single answer."""
    policy = speaker.policy
    generator = Generator(speaker.sampler, policy.renderer, params, "policy", policy.context, kit or Kit())
    conversation = Conversation(Task(tuple(messages), Unjudged()), generator, _check, key)
    found = await (method.rollout if method else single())(conversation.task, conversation)
    assert isinstance(found, Episode)
    calls = {"calls": found.notes[CALLS]} if CALLS in found.notes else {}
    return found.text, {**spent_of(found), **calls}


async def answered(speaker: Speaker, method: Played, wanted: Wanted, key: int) -> Piece:
    """The answer to a chat as its only piece."""
    text, spent = await answer(speaker, method, wanted.messages, wanted.params, key)
    return Piece(text, finish="stop", spent=int(spent["tokens"]))
