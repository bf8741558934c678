"""An answer that calls tools on its way: reply, results, reply, until a reply calls nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.tools.kit import ToolSession

if TYPE_CHECKING:  # for annotations alone: a conversation is built on this
    from etude.rollout.conversation import Conversation

ATTEMPTS = ("attempt", "move", "answer")
"""How the tags begin of replies that may call tools; others are critiques, reflections and judgements."""

RESULT = "result"
"""The tag of what tools gave."""


async def with_calls(
    conversation: Conversation,
    tools: ToolSession,
    tag: str,
    max_tokens: int | None,
    params: Mapping[str, Any],
) -> str:
    """Samples replies and answers what they call; the text of the last one, which calls nothing, or ended the world's episode
    by a call, or was cut, or is the last that there may be (`stop` is "turns" then)."""
    offer, turns = conversation.offer, tools.budgets.turns
    for number in range(1, turns + 1):
        text = await conversation.sample(tag, max_tokens, offer.ends if offer else (), params)
        calls = offer.calls(text) if offer and conversation.stop != "length" else []
        if conversation.stop == "cut":  # at the end of a call, which is over
            conversation.stop = "end"
        if not calls:
            break
        if number == turns:
            conversation.stop = "turns"
            tools.leave(calls)
            break
        results = await tools.answer(calls, last=number == turns - 1)
        if tools.over:
            break
        conversation.user(results)
    return text
