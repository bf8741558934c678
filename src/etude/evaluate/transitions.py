"""What second attempts change: accuracy of the first and of the second, and the four ways from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from etude.errors import UserError, nearest
from etude.rollout.attempts import attempt, reworded
from etude.rollout.basic import retry
from etude.rollout.conversation import Conversation
from etude.rollout.second import REFLECTION, between_tags, heard, reconsider
from etude.stages import Rollout
from etude.types import Episode, Group, Task

WAYS = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")

REFLECT = (
    "{question}\n\nYour answer:\n{answer}\n\nWhat came of it: {feedback}\n\n"
    "What would help you to do better at this and at tasks like it? Write advice to yourself as "
    "<prompt>advice</prompt>."
)


def reflect() -> Rollout:
    """An attempt; where it is wrong, a reflection on it, then a second attempt with its advice above the question.
    Asked in the words of ERL (`methods/self_correction/erl.py`), so that a policy trained by it is measured as trained."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        verdict, answer = await attempt(conversation, task.prompt, 1)
        if verdict.reward < 1:
            question = task.prompt[-1].content
            asked = REFLECT.format(question=question, answer=answer, feedback=heard(verdict, task))
            conversation.new_context(reworded(task.prompt, asked))
            advice = between_tags(await conversation.reply(REFLECTION))
            again = reworded(task.prompt, f"{advice}\n\n{question}")
            await attempt(conversation, again, 2, new_context=True)
        return conversation.done()

    return rollout


AGAIN: dict[str, Callable[[], Any]] = {
    "feedback": lambda: retry(2),  # a wrong answer hears the task's feedback
    "reconsider": reconsider,  # every answer is asked to look again, right or wrong
    "reflect": reflect,  # a wrong answer is reflected on first
}
"""How `etude eval --again` has a second attempt made."""


def second_attempt(name: str) -> Any:
    """The rollout of that name; None for "". Raises UserError for an unknown one."""
    if name and name not in AGAIN:
        raise UserError(f"there is no way '{name}' to try again{nearest(name, AGAIN)}")
    return AGAIN[name]() if name else None


def outcomes(episode: Episode) -> tuple[bool, bool]:
    """Whether the first attempt was right, and the last. Who was not asked again stays with the first."""
    return episode.verdicts[0].correct, episode.verdicts[-1].correct


def transitions(groups: Iterable[Group]) -> dict[str, float]:
    """Shares of the episodes with a verdict: `first` and `second` (right at the first, right at the last attempt),
    `again` (made more than one), and the four ways, which add up to 1: `right_wrong` was right first and wrong
    last. {} where no episode made a second attempt. Weighs every episode alike."""
    judged = [e for g in groups for e in g.episodes if e.verdicts and not e.failure]
    again = [len(e.verdicts) > 1 for e in judged]
    if not any(again):
        return {}
    return {"again": float(np.mean(again)), **_shares([outcomes(e) for e in judged])}


def _shares(found: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    first, last = np.array(found).T
    ways = (first & last, first & ~last, ~first & last, ~first & ~last)
    return {
        "first": float(first.mean()),
        "second": float(last.mean()),
        **{name: float(way.mean()) for name, way in zip(WAYS, ways, strict=True)},
    }


def decomposed(shares: Mapping[str, float]) -> dict[str, float]:
    """What second attempts are made of, from the shares of `transitions`: with A1 and A2 the accuracies of both,

        confidence  CL = P(right again | right at first)      critique  CS = P(right now | wrong at first)
        A2 = A1 CL + (1 - A1) CS                              relative  (A2 - A1^2) / (2 A1 (1 - A1))

    The last lies at 1/2 where nothing is gained, at 0 and 1 where the second attempt keeps what two independent ones agree
    on, or what either of them gets right. What is undefined is left out. Confidence v.s. Critique: A
    Decomposition of Self-Correction Capability for LLMs (Yang et al., 2024)."""
    first, second = shares["first"], shares["second"]
    found = {}
    if first > 0:
        found["confidence"] = shares["right_right"] / first
    if first < 1:
        found["critique"] = shares["wrong_right"] / (1 - first)
    if 0 < first < 1:
        found["relative"] = (second - first**2) / (2 * first * (1 - first))
    return found
