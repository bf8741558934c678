"""The first wrong step of a failed attempt, with a step to put in its place: named by the policy, or found by
comparison with the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout

Proposal = tuple[int, str]  # the first wrong step, counted from 0, and what should stand there

ASK_FOR_CORRECTION = (
    "{task}\n\nA solution that is right:\n{reference}\n\nAn attempt that failed, step by step:\n{steps}\n\n"
    "Check it step by step. Name the first wrong step and write the one step that should stand in its place, "
    "without giving the final answer away, as 'NUMBER: STEP'."
)


def read_proposal(text: str, steps: int) -> Proposal | None:
    """'NUMBER: STEP', the last such line; steps are counted from 1 in words."""
    found = re.findall(r"^\W*(?:step\s*)?(\d+)\s*[:.)]\s*(\S.*)$", text, re.IGNORECASE | re.MULTILINE)
    number, words = found[-1] if found else ("0", "")
    return (int(number) - 1, words.strip()) if 1 <= int(number) <= steps else None


def first_departure(steps: Sequence[str], reference: Sequence[str]) -> Proposal | None:
    """The first step that is not the reference's, and the reference's own."""
    pairs = zip_longest((s.strip() for s in steps), (s.strip() for s in reference), fillvalue="")
    wrong = ((i, right) for i, (mine, right) in enumerate(pairs) if mine != right and i < len(steps))
    return next(((i, right) for i, right in wrong if right), None)


def reveals(words: str, answer: str | None) -> bool:
    """Whether the answer stands among the words, as a word of its own."""
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer or '')}(?!\w)", words) is not None


async def propose(
    rollouts: GroupRollout, conversation: Conversation, steps: Sequence[str], proposer: str, separator: str
) -> Proposal | None:
    """The first wrong one of an attempt's `steps` and its correction: by comparison with the reference
    (`proposer` = "reference"), or as the policy answers when it is shown both ("self")."""
    task = rollouts.task
    reference = task.reference or task.answer or ""
    if proposer == "reference":
        return first_departure(steps, reference.split(separator) if separator else list(reference))
    listed = "\n".join(f"{i}: {step.strip()}" for i, step in enumerate(steps, 1))
    conversation.user(
        ASK_FOR_CORRECTION.format(task=task.prompt[-1].content, reference=reference, steps=listed)
    )
    return read_proposal(await conversation.reply(tag="proposal"), len(steps))
