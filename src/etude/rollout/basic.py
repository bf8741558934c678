"""The rollouts that most methods use."""

from __future__ import annotations

from typing import Annotated

from etude.rollout.attempts import AGAIN, attempt, joined
from etude.rollout.conversation import Conversation
from etude.settings import Setting
from etude.stages import Rollout
from etude.tasks.check import judged
from etude.types import Episode, Task

Attempts = Annotated[int, Setting("answers allowed", low=1, high=64)]


def single() -> Rollout:
    """One answer, one verdict (none where the task has nothing to check). A task that is an environment is played to its
    end, turn by turn."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        if task.environment is not None:
            await attempt(conversation, task.prompt, 1, tag="move")
        else:
            conversation.user(task.prompt)
            reply = await conversation.reply()
            if judged(task):
                await conversation.check(reply)
        return conversation.done()

    return rollout


def retry(
    attempts: Attempts = 3,
    told: Annotated[
        str, Setting("what a wrong answer hears; empty: the task's own feedback, so far as it has any")
    ] = "",
    repeat: Annotated[bool, Setting("ask the question again with it")] = False,
) -> Rollout:
    """Answer, hear what was wrong, answer again, until right or out of attempts; all in one conversation."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        said = task.prompt
        for number in range(1, attempts + 1):
            verdict, _ = await attempt(conversation, said, number)
            if verdict.correct:
                break
            heard = told or verdict.feedback or AGAIN
            said = joined(heard, task.prompt if repeat else ())
        return conversation.done()

    return rollout
