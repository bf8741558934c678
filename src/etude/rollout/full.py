"""What is done where a conversation has reached its longest length: it ends there, or goes on without its oldest turns, which may
be summed up first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from etude import seeds
from etude.text.tool_calls import THOUGHT, TOOL
from etude.types import Array, Message, Span

if TYPE_CHECKING:
    from etude.rollout.conversation import Conversation, Generator

FULL = "context_full"
"""Note: how many tokens the conversation may have, where it reached them."""
LEFT_OUT = "context_left_out"
"""Note: (replies so far, messages that the next one no longer sees), each time that earlier turns were left out."""
SUMMED_UP = "context_summed_up"
"""Note: (replies so far, messages that a summary stands for, its tokens), each time that earlier turns were summed up."""
SUMMARY = "summary"
"""The tag of a summary, and of what asks a second model for one."""

REFUSE, DROP_OLDEST, SUMMARISE = "refuse", "drop_oldest", "summarise"
POLICIES = (REFUSE, DROP_OLDEST, SUMMARISE)
POLICY, TEACHER = "policy", "teacher"  # who writes summaries

GONE = "(Earlier turns are left out.)"
INSTEAD = "(The earlier turns, summed up: {summary})"
ASK = (
    "{question}\n\nThis was said and done so far:\n{turns}\n\nSum it up for whoever goes on and sees no more than your summary: what "
    "was found, what was tried, what is left to do."
)


def leave_out(conversation: Conversation, room: int) -> bool:
    """Begins a new sequence with the question and the latest turns that leave `room` tokens, so that the oldest turns are
    no longer seen; False where not even the latest one fits, or training sees other words than sampling did."""
    if not _may_begin(conversation):
        return False
    fitting = _fitting(conversation, room, GONE)
    if not fitting:
        return False
    first, begin = _first(conversation), fitting[0]
    _note(conversation, LEFT_OUT, (conversation.turns, begin - first - 1))
    _begin_at(conversation, begin, GONE)
    return True


async def sum_up(conversation: Conversation, room: int) -> bool:
    """As `leave_out`, with a summary in the place of the turns that are no longer seen. Its writer is asked for it in a sequence of
    its own: the policy, whose summary is a reply like others, or a second model, whose words training does not see. Of turns
    that do not fit into its context the oldest are left out; where there is no room for a summary, nothing is summed up."""
    if not _may_begin(conversation):
        return False
    first, longest = _first(conversation), conversation.generator.summary_tokens
    writer = conversation.generator.summariser or conversation.generator
    begin, asked, summed = _summable(conversation, writer, room + longest, writer.limit - longest)
    if asked is None:
        return leave_out(conversation, room)
    params = replace(writer.params, max_tokens=longest, stop=())
    sample = await writer.sampler.sample(
        asked, params, seeds.key(conversation.key, SUMMARY, conversation.turns)
    )
    own = writer is conversation.generator
    waiting = conversation.spans.pop()  # what the next reply answers stands behind the summary
    conversation.spans += [
        Span("user", asked, hidden=not own, restart=True, tag="prompt" if own else SUMMARY),
        Span(
            "assistant",
            sample.tokens,
            own,
            sample.logp if own else None,
            hidden=not own,
            tag=SUMMARY,
            version=sample.version if own else -1,
        ),
        waiting,
    ]
    said = writer.renderer.decode(sample.tokens).rpartition(THOUGHT)[2].strip() or "(nothing)"
    _note(conversation, SUMMED_UP, (conversation.turns, summed, len(sample.tokens)))
    if summed < begin - first - 1:
        _note(conversation, LEFT_OUT, (conversation.turns, begin - first - 1 - summed))
    conversation.summary = said
    _begin_at(conversation, begin, INSTEAD.format(summary=said))
    return True


def _may_begin(conversation: Conversation) -> bool:
    """Whether a reply is due to words of the user, or to results, all of which training sees as sampling did."""
    spans, messages = conversation.spans, conversation.messages
    asked = bool(spans) and spans[-1].role in ("user", TOOL) and messages[-1].role in ("user", TOOL)
    return asked and not any((s.hidden or s.unseen) and s.tag != SUMMARY for s in spans)


def _first(conversation: Conversation) -> int:
    """The place of the question among the messages."""
    return next(i for i, m in enumerate(conversation.messages) if m.role == "user")


def _fitting(conversation: Conversation, room: int, note: str) -> list[int]:
    """The places of first messages that may be kept, so that `room` tokens are left; the one that keeps most comes first."""
    first, messages = _first(conversation), conversation.messages
    begins = [i for i, m in enumerate(messages) if m.role == "assistant" and i > first + 1]
    begins += [len(messages) - 1] if messages[-1].role == "user" and len(messages) > first + 2 else []
    limit = conversation.generator.limit
    return [b for b in begins if len(conversation.prompt(_kept(conversation, b, note))) + room <= limit]


def _summable(
    conversation: Conversation, writer: Generator, room: int, longest: int
) -> tuple[int, Array | None, int]:
    """The place of the first message that is kept, the request for a summary of those before it, in at most `longest` tokens, and
    how many of them it holds. So many are summed up that half of the context is free again, as far as they fit into one
    request: not every further turn is to ask for another summary."""
    first, messages = _first(conversation), conversation.messages
    fitting = _fitting(conversation, room, INSTEAD)
    half = _fitting(conversation, room + conversation.generator.limit // 2, INSTEAD)
    for begin in reversed([b for b in fitting if not half or b <= half[0]]):
        asked = _request(conversation, writer, messages[first + 1 : begin])
        if len(asked) <= longest:
            return begin, asked, begin - first - 1
    for begin in fitting[:1]:
        for left_out in range(first + 2, begin):
            asked = _request(conversation, writer, messages[left_out:begin])
            if len(asked) <= longest:
                return begin, asked, begin - left_out
    return 0, None, 0


def _kept(conversation: Conversation, begin: int, note: str) -> list[Message]:
    """The question with `note`, and the messages from `begin` on."""
    first = _first(conversation)
    said = Message("user", f"{_question(conversation)}\n\n{note}")
    kept = [*conversation.messages[:first], said, *conversation.messages[begin:]]
    if kept[-2] is said and kept[-1].role == "user":  # two turns of the user in a row break many templates
        kept[-2:] = [Message("user", f"{said.content}\n\n{kept[-1].content}")]
    return kept


def _question(conversation: Conversation) -> str:
    return conversation.question or conversation.messages[_first(conversation)].content


def _begin_at(conversation: Conversation, begin: int, note: str) -> None:
    """A new sequence in the place of what waits for a reply: the question, `note`, and the messages from `begin` on."""
    kept, question = _kept(conversation, begin, note), _question(conversation)
    conversation.spans[-1] = Span("user", conversation.prompt(kept), restart=True, tag="prompt")
    conversation.messages, conversation.question = kept, question


def _request(conversation: Conversation, writer: Generator, turns: list[Message]) -> Array:
    """int32[n]: what asks for a summary of `turns`, and of what was summed up before."""
    before = [f"(before that, summed up) {conversation.summary}"] if conversation.summary else []
    lines = "\n".join([*before, *(f"[{m.role}] {m.content}" for m in turns)])
    text = ASK.format(question=_question(conversation), turns=lines)
    tokens: Array = writer.renderer.prompt([Message("user", text)])
    return tokens


def _note(conversation: Conversation, name: str, event: tuple[int, ...]) -> None:
    conversation.notes[name] = [*conversation.notes.get(name, ()), event]
