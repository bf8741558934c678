"""Replies as they are sampled: text that only grows, cut before a stop string, for as many callers as ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

import numpy as np

from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Sample
from etude.text.stream import TextStream
from etude.text.tool_calls import Call
from etude.types import Array, SamplingParams

FINISH = {"end": "stop", "cut": "stop", "length": "length"}  # by `Sample.stop`, as OpenAI names it


@dataclass(frozen=True)
class Piece:
    """A part of a reply: its text, and the token that was just drawn. The last piece says how the reply ended."""

    text: str
    token: int | None = None
    logp: float = 0.0
    finish: str | None = None  # "stop" | "length" | "tool_calls"
    sample: Sample | None = None  # the whole reply, on the last piece
    calls: tuple[Call, ...] = ()  # of tools that the client carries out, on the last piece
    spent: int = 0  # tokens, on the last piece of what a method answered

    @property
    def tokens(self) -> int:
        """What was generated for the reply, on its last piece; 0 on others."""
        return self.spent or (len(self.sample.tokens) if self.sample else 0)


class Speaker:
    """A model that answers: one scheduler for all who ask at the same time."""

    def __init__(self, policy: Policy, rows: int = 32) -> None:
        self.policy, self.sampler = policy, sampler_for(policy, rows)

    async def stream(self, prompt: Array, params: SamplingParams, key: int) -> AsyncGenerator[Piece, None]:
        """The reply to int32[n] `prompt`, a piece for every token and a last one. Whoever stops listening ends the reply.
        Raises `UserError` for an unusable request."""
        text = TextStream(self.policy.renderer.decode, params.stop)
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

        def watch(token: int, logp: float) -> bool:
            ended = text.feed(token)
            pieces.put_nowait(Piece(text.take(), token, logp))
            return ended

        plain = replace(params, stop=())  # it is `watch` that ends it
        work = asyncio.ensure_future(self.sampler.sample(np.asarray(prompt, np.int32), plain, key, watch))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            sample = work.result()
            yield Piece(text.rest(), finish=FINISH[sample.stop], sample=sample)
        finally:
            work.cancel()

    async def close(self) -> None:
        await self.sampler.close()
