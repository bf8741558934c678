"""What is done where a conversation has reached its longest length: it ends there, or its oldest turns are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etude.types import Message, Span

if TYPE_CHECKING:
    from etude.rollout.conversation import Conversation

FULL = "context_full"
"""Note: how many tokens the conversation may have, where it reached them."""
LEFT_OUT = "context_left_out"
"""Note: (replies so far, messages that the next one no longer sees), each time that earlier turns were left out."""
REFUSE, DROP_OLDEST = "refuse", "drop_oldest"


def leave_out(conversation: Conversation, room: int) -> bool:
    """Begins a new sequence with the question and the latest turns that leave `room` tokens, so that the oldest turns are
    no longer seen; False where not even the latest one fits, or training sees other words than sampling did."""
    if (
        not conversation.spans
        or conversation.spans[-1].role != "user"
        or conversation.messages[-1].role != "user"
    ):
        return False
    if any(span.hidden or span.unseen for span in conversation.spans):
        return False
    first = next(i for i, m in enumerate(conversation.messages) if m.role == "user")
    replies = [i for i, m in enumerate(conversation.messages) if m.role == "assistant" and i > first + 1]
    for begin in [*replies, len(conversation.messages) - 1]:
        if begin <= first + 1:
            continue
        question = conversation.question or conversation.messages[first].content
        said = Message("user", f"{question}\n\n(Earlier turns are left out.)")
        kept = [*conversation.messages[:first], said, *conversation.messages[begin:]]
        if kept[-2] is said:  # two turns of the user in a row break many templates
            kept[-2:] = [Message("user", f"{said.content}\n\n{kept[-1].content}")]
        tokens = conversation.prompt(kept)
        if len(tokens) + room <= conversation.generator.limit:
            conversation.notes[LEFT_OUT] = [
                *conversation.notes.get(LEFT_OUT, ()),
                (conversation.turns, begin - first - 1),
            ]
            conversation.spans[-1] = Span("user", tokens, restart=True, tag="prompt")
            conversation.messages, conversation.question = kept, question
            return True
    return False
