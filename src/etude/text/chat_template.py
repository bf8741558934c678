"""Conversations as tokens. What was sampled is never tokenised again: a later turn appends tokens to those
held. Where a template rewrites what came before (strips thinking, say), the caller is told and given the
whole new prompt: a new sequence begins there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from etude.text.framing import BARE, Framing
from etude.text.tokenizer import Tokenizer
from etude.text.tool_calls import SYNTAXES, Call, Offer, Schema, syntax_of
from etude.types import Array, Message

MARK = "\u241freply\u241f"  # stands for a reply, to find what a template writes after one


class Renderer:
    """One per model. `framing`: how questions are put to it."""

    def __init__(self, tokenizer: Tokenizer, framing: Framing = BARE) -> None:
        self.tokenizer, self.framing = tokenizer, framing
        self.stops = tokenizer.stops

    @property
    def format(self) -> str:
        """One line: what text a prompt becomes."""
        if self.tokenizer.template is None:
            return (
                "no chat template: prompts are given as they are written, the reply begins right behind them, and ends at the "
                "end token, at the length limit, or at what --stop names"
            )
        return "the model's chat template"

    def offer(self, tools: Sequence[Schema], syntax: str = "auto") -> Offer:
        """These tools, in the syntax of that name; auto: the chat template's own."""
        knows = self.tokenizer.knows_tools
        own = syntax_of(self.tokenizer.template, knows)
        chosen = own if syntax == "auto" else SYNTAXES[syntax]
        return Offer(tuple(tools), chosen, knows and chosen is own)

    def calling(self, before: Sequence[Message], said: str, calls: Sequence[Call], tools: Offer) -> str:
        """The text of a reply after `before` that says something and makes calls: as the chat template writes it, where that is
        read back as these calls, else as their syntax has it."""
        if tools.native and calls:
            made = [(call.name, call.arguments) for call in calls]
            text = self.tokenizer.calling(before, said, made, tools.functions, self.framing.thinking)
            if text is not None and tools.calls(text) == list(calls):
                return text
        return tools.write(said, calls)

    def prompt(self, messages: Sequence[Message], asks: int = 0, tools: Offer | None = None) -> Array:
        """int32[n]: the conversation, ready for the model's next reply. `asks`: so many messages at its beginning are a
        task's question. `tools`: what the model may call."""
        messages = self._framed(messages, asks, tools)
        if self.tokenizer.template is None:
            return self.tokenizer.encode(_plain(messages), special=True)
        return self.tokenizer.encode(self._text(messages, tools))

    def opening(self, messages: Sequence[Message]) -> Array:
        """int32[n]: the conversation up to the words of its last message, which may be empty and whose turn stays open."""
        *before, last = messages
        if self.tokenizer.template is None:
            return self.tokenizer.encode("".join(m.content + "\n" for m in before), special=True)
        text = self._text([*before, Message(last.role, MARK)])
        return self.tokenizer.encode(text[: text.rindex(MARK)])

    def extend(
        self,
        messages: Sequence[Message],
        new: Sequence[Message],
        ended: bool = True,
        asks: int = 0,
        tools: Offer | None = None,
    ) -> tuple[Array, bool]:
        """What to append after a sampled reply so that the conversation goes on with `new`.

        `messages` ends with that reply (role assistant, its decoded text); `ended` says whether the sampled
        tokens ended with a stop token (else the one that closes the turn is part of what is appended). `asks`, `tools`:
        as for `prompt`.
        Returns (int32[n], rewrote): where the template rewrites history, the whole new prompt and True."""
        if not messages or messages[-1].role != "assistant":
            raise ValueError("extend continues a conversation that ends with the assistant's reply")
        both, messages = self._framed([*messages, *new], asks, tools), self._framed(messages, asks, tools)
        new = both[len(messages) :]
        if self.tokenizer.template is None:
            return self.tokenizer.encode(_later(new)), False
        reply = messages[-1].content
        before = self._text(messages[:-1], tools)
        marked = self._text([*messages[:-1], Message("assistant", MARK), *new], tools)
        whole = self._text([*messages, *new], tools)
        if not marked.startswith(before + MARK):
            return self.tokenizer.encode(whole), True
        tail = marked[len(before) + len(MARK) :]
        if whole not in (before + reply + tail, before + reply.strip() + tail):
            return self.tokenizer.encode(whole), True
        tokens = self.tokenizer.encode(tail)
        if ended and len(tokens) and int(tokens[0]) in self.stops:
            tokens = tokens[1:]
        return tokens, False

    def _text(self, messages: Sequence[Message], tools: Offer | None = None) -> str:
        native = tools is not None and tools.native
        given = {"tools": tools.functions} if tools is not None and native else {}
        return self.tokenizer.render(messages, True, self.framing.thinking, **given)

    def _framed(
        self, messages: Sequence[Message], asks: int, tools: Offer | None = None
    ) -> Sequence[Message]:
        if self.framing != BARE:
            messages = self.framing.framed(messages, asks, self.tokenizer.template is None)
        return messages if tools is None else tools.told(messages)

    def decode(self, tokens: Sequence[int] | Array) -> str:
        """The text of tokens without those around turns. For display and checkers; never raises."""
        return self.tokenizer.decode(tokens)


def _plain(messages: Sequence[Message]) -> str:
    """Without a template: the prompt as it is written, and the first reply right behind it. Prompts of several messages
    are joined by a newline; what is said after a reply is a line of its own."""
    replies = [i for i, m in enumerate(messages) if m.role == "assistant"]
    first = replies[0] if replies else len(messages)
    out = "\n".join(m.content for m in messages[:first])
    for reply, group in groupby(messages[first:], key=lambda m: m.role == "assistant"):
        said = list(group)
        out += "".join(m.content for m in said) if reply else _later(said)
    return out


def _later(new: Sequence[Message]) -> str:
    return "\n" + "".join(m.content + "\n" for m in new)
