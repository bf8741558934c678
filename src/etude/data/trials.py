"""What recipes of data work with that try tools out: the tools, how a model that writes is told of them, and calls that are carried out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from etude import seeds
from etude.data.workshop import Scribe, Workshop
from etude.errors import UserError
from etude.tasks.check import Unjudged
from etude.text.tool_calls import TAGS, TOOL, Call, Offer, Unreadable
from etude.tools.kit import ToolSession
from etude.tools.tool import Tool
from etude.types import Message, Task

Heard = tuple[Call | Unreadable, str, bool]  # what was called, what came of it, whether it failed


@dataclass
class Trials:
    """The tools of a workshop, called by one writer."""

    shop: Workshop
    who: str = "policy"
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def scribe(self) -> Scribe:
        return self.shop.scribe(self.who)

    def tools(self, *name: object) -> dict[str, Tool]:
        """By name. UserError where there is none."""
        session = self.session(*name)
        if not session.tools:
            raise UserError("this recipe tries tools out; name some by --tools, as in --tools calculator")
        return session.tools

    def session(self, *name: object) -> ToolSession:
        """A new session of all tools, whose random streams are named."""
        kit = self.shop.kit
        if kit is None or not kit.sources:
            raise UserError("this recipe tries tools out; name some by --tools, as in --tools calculator")
        session = kit.session(Task((), Unjudged()), seeds.key(self.shop.seed, "data", *name))
        assert session is not None
        return session

    def told(self, tool: Tool) -> Offer:
        """A tool as a writer is told of it, in plain words, whatever its chat template knows."""
        return Offer((tool.schema,), TAGS)

    def own(self, tools: Sequence[Tool]) -> Offer:
        """Tools as the policy itself calls them."""
        generator = self.shop.scribes["policy"].generator if "policy" in self.shop.scribes else None
        schemas = tuple(tool.schema for tool in tools)
        if generator is None:
            return Offer(schemas, TAGS)
        made: Offer = generator.renderer.offer(
            list(schemas), self.shop.kit.syntax if self.shop.kit else "auto"
        )
        return made

    async def say(self, chat: list[Message], said: str, *name: object, ends: Sequence[str] = ()) -> str:
        """What the writer answers, cut behind the first of `ends`; both become part of the chat."""
        chat.append(Message("user", said))
        key = seeds.key(self.shop.seed, "data", self.who, *name)
        text = await self.scribe.say(chat, replace(self.shop.params, **self.params), key)
        at = min((text.find(end) + len(end) for end in ends if end in text), default=len(text))
        chat.append(Message("assistant", text[:at]))
        return text[:at]

    async def call(self, session: ToolSession, offer: Offer, text: str) -> Heard | None:
        """The first call of a reply, carried out; None where it calls nothing."""
        calls = offer.calls(text)
        if not calls:
            return None
        (message,) = await session.answer(calls[:1], last=False)
        assert message.role == TOOL
        return calls[0], message.content, bool(session.record[-1]["failed"])


def described(tool: Tool) -> str:
    """A tool's name, what it does, and its parameters, for people and models."""
    return f"{tool.name}: {tool.description}\nParameters: {json.dumps(tool.parameters.get('properties', {}), ensure_ascii=False)}"


def one_line(text: str) -> str:
    """The first line that says something, without quotes."""
    return next((line.strip().strip('"') for line in text.splitlines() if line.strip()), "")
