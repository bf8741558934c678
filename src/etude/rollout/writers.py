"""Who writes the words that help (a critique, a reflection, a better answer): the policy, its frozen start, a second
model, or a model behind an OpenAI-compatible address."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from etude import seeds
from etude.rollout.conversation import Conversation, Failed
from etude.rollout.remote import ChatAddress
from etude.settings import Setting
from etude.types import Message, SamplingParams

AUXILIARY = {"start": "reference", "teacher": "teacher"}
"""The auxiliary model that a writer is."""

WRITERS = ("policy", "start", "teacher", "remote")

WhoWrites = Annotated[
    str,
    Setting(
        "who writes it: the policy, its frozen start, run.teacher, or the model at `address`", choices=WRITERS
    ),
]
Address = Annotated[str, Setting("a remote writer, as http://HOST/v1#MODEL (OpenAI-compatible)")]
Longest = Annotated[int | None, Setting("longest text of that writer; none: run.max_tokens", "tokens", low=1)]


class Writer:
    """Writes a text about a conversation. `reads`: the auxiliary model that must be there for it.

    What the policy writes is sampled and can be trained; what another writes stands in the episode unsampled. A
    remote writer is asked with a seed, but nothing obliges it to repeat itself: only runs without one resume
    exactly. Raises UserError for a remote writer without an address."""

    def __init__(self, who: str, address: str = "", longest: int | None = None) -> None:
        self.who, self.longest = who, longest
        self.reads = frozenset({AUXILIARY[who]} if who in AUXILIARY else ())
        self.remote = RemoteModel(address) if who == "remote" else None

    async def write(self, conversation: Conversation, said: Sequence[Message], tag: str) -> str:
        """The text on `said`, in a context of its own within the episode, as the span `tag`."""
        conversation.new_context(said)
        if self.who == "policy":
            return await conversation.reply(tag, self.longest)
        text = await self.draft(conversation, said)
        conversation.inject(text, tag)
        return text

    async def draft(self, conversation: Conversation, said: Sequence[Message], **params: Any) -> str:
        """The text alone, which leaves no trace in the episode. `params`: as for `Conversation.reply`."""
        key = seeds.key(conversation.key, "speaker", conversation.turns)
        if self.remote is not None:
            settings = replace(conversation.generator.params, **params)
            return await self.remote(
                said, replace(settings, max_tokens=self.longest or settings.max_tokens), key
            )
        generator = (
            conversation.generators[AUXILIARY[self.who]] if self.who in AUXILIARY else conversation.generator
        )
        other = Conversation(conversation.task, generator, conversation.check_runner, key, conversation.index)
        other.user(said)
        return await other.reply(max_tokens=self.longest, **params)


class RemoteModel:
    """A chat model at `http://HOST/v1#MODEL` (`ChatAddress`). A request that fails is tried `tries` times; then the episode fails
    (`Failed`)."""

    def __init__(self, address: str, seconds: float = 60.0, tries: int = 3, pause: float = 1.0) -> None:
        self.address = ChatAddress(address)
        self.seconds, self.tries, self.pause = seconds, tries, pause

    async def __call__(self, said: Sequence[Message], params: SamplingParams, key: int) -> str:
        """The reply's text."""
        settings = {
            "max_tokens": params.max_tokens,
            "temperature": 0.0 if params.greedy else params.temperature,
            "top_p": params.top_p,
            "seed": key % 2**31,
        }
        for left in reversed(range(self.tries)):
            try:
                return (await asyncio.to_thread(self.address.ask, said, self.seconds, **settings))[0]
            except (OSError, ValueError, LookupError, TypeError) as error:
                if not left:
                    where = self.address.url
                    raise Failed("sampler", f"the writer at {where} did not answer: {error}") from error
                await asyncio.sleep(self.pause)
        raise AssertionError("unreachable")
