"""A scripted expert beside the policy: what it would do now, and whether somebody else did the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.rollout import turns
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation
from etude.rollout.full import FULL
from etude.rollout.writers import WRITERS
from etude.settings import Setting
from etude.tasks.worlds.commands import command_of
from etude.types import Environment, Message, Task, Verdict

EXPERT = "expert"
MOVE, WRONG, CORRECTION = "move", "wrong", "correction"
"""Tags: a turn, one that is not to be learnt, and what a teacher puts in the place of such a one."""

WhoTeaches = Annotated[
    str,
    Setting(
        "who teaches: the world's scripted expert (a task's solution, where it is no world), or a model",
        choices=(EXPERT, *WRITERS),
    ),
]


async def opening(task: Task, world: Environment | None) -> tuple[Message, ...]:
    """What the policy is told at the beginning: the question, and what is to be seen."""
    return task.prompt if world is None else below(task.prompt, await turns.observe(world))


async def expert_reply(task: Task, world: Environment | None, number: int) -> str | None:
    """What the expert does in turn `number` (from 0): what the world says to be best now, else the reply of that number of those
    that solve it, or the task's solution where it is no world. None where nobody knows."""
    if world is None:
        return task.reference or task.answer
    if (best := await turns.ask(world, EXPERT)) is not None:
        return str(best)
    replies = await turns.ask(world, "solve") or (task.reference or "").splitlines()
    return str(replies[number]) if number < len(replies) else None


def same_action(one: str, other: str) -> bool:
    """Whether two replies name the same command, up to case and dressing, whatever was said before it."""
    return command_of(one).casefold() == command_of(other).casefold()


def called_wrong(conversation: Conversation, begin: int) -> None:
    """Marks the turns from span number `begin` on as not to be learnt."""
    spans = conversation.spans
    spans[begin:] = [replace(s, tag=WRONG) if s.tag == MOVE else s for s in spans[begin:]]


async def carried_out(conversation: Conversation, world: Environment | None, text: str) -> str | None:
    """What comes of a reply; None where the attempt is over, whose verdict the conversation then has. Without a world the reply is
    the answer."""
    if world is None:
        await conversation.check(text)
        return None
    said, verdict = await turns.act(world, text)
    if verdict is None:
        return said
    conversation.verdict(verdict)
    return None


def cut_off(conversation: Conversation) -> bool:
    """Whether the conversation has reached its longest length, which ends the attempt with a verdict that says so."""
    if conversation.full:
        conversation.verdict(Verdict(0.0, False, f"Cut off at {conversation.notes[FULL]} tokens."))
    return conversation.full


async def wrong_command(world: Environment, best: str, draw: np.random.Generator) -> str | None:
    """Another command than the best one: one that can be given, or the best one without its last word, each half of the time. None
    where the world's expert would not know how to go on after it, or there is none."""
    if not hasattr(world, EXPERT):
        return None
    others = [str(a) for a in await turns.ask(world, "actions") or () if not same_action(str(a), best)]
    broken = [" ".join(best.split()[:-1])] if len(best.split()) > 1 else []
    kinds = [found for found in (others, broken) if found]
    if not kinds:
        return None
    kind = kinds[int(draw.integers(len(kinds)))]
    return kind[int(draw.integers(len(kind)))]


def put(conversation: Conversation, text: str, tag: str = MOVE) -> None:
    """A turn that was not sampled. After one with which the conversation reaches its longest length it is full."""
    conversation.inject(text, tag)
    limit = conversation.generator.limit
    if len(conversation.context) >= limit:
        conversation.full, conversation.stop = True, "length"
        conversation.notes[FULL] = limit
