"""Replies as they are sampled: text that only grows, cut before a stop string, for as many callers as ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Sample
from etude.types import Array, SamplingParams

HALF = "\ufffd"  # what a decoder writes for a character whose bytes are not all there
FINISH = {"end": "stop", "cut": "stop", "length": "length"}  # by `Sample.stop`, as OpenAI names it


class TextStream:
    """The text of tokens that arrive one by one. Each piece is given out once and never changed: halves of characters,
    and what may be the beginning of a stop string, are held back."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self.decode, self.stops = decode, stops
        self.tokens: list[int] = []
        self.stopped = False  # a stop string was met; the text ends before it
        self._begin = self._read = (
            0  # tokens[begin:read] are decoded again as what stands before the next ones
        )
        self._ready = ""  # text that may be given out
        self._held = ""  # text in which a stop string may begin

    def feed(self, token: int) -> bool:
        """Takes a token; True once a stop string is complete."""
        self.tokens.append(token)
        before, now = self._window()
        if not now.endswith(HALF):
            self._begin, self._read = self._read, len(self.tokens)
            self._add(now[len(before) :])
        return self.stopped

    def take(self) -> str:
        """The text that has become certain since the last call."""
        ready, self._ready = self._ready, ""
        return ready

    def rest(self) -> str:
        """What was held back, once no more tokens come."""
        if self.stopped:
            return self.take()
        before, now = self._window()
        self._read = self._begin = len(self.tokens)
        self._add(now[len(before) :])
        held = "" if self.stopped else self._held
        self._held = ""
        return self.take() + held

    def _window(self) -> tuple[str, str]:
        """The text of the last tokens without and with the new ones: what a token stands for can depend on the one
        before it, but not on those further away."""
        return self.decode(self.tokens[self._begin : self._read]), self.decode(self.tokens[self._begin :])

    def _add(self, text: str) -> None:
        held = self._held + text
        found = [at for stop in self.stops if (at := held.find(stop)) >= 0]
        if found:
            self._ready, self._held, self.stopped = self._ready + held[: min(found)], "", True
            return
        keep = max((_overlap(held, stop) for stop in self.stops), default=0)
        self._ready, self._held = self._ready + held[: len(held) - keep], held[len(held) - keep :]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


@dataclass(frozen=True)
class Piece:
    """A part of a reply: its text, and the token that was just drawn. The last piece says how the reply ended."""

    text: str
    token: int | None = None
    logp: float = 0.0
    finish: str | None = None  # "stop" | "length"
    sample: Sample | None = None  # the whole reply, on the last piece


class Speaker:
    """A model that answers: one scheduler for all who ask at the same time."""

    def __init__(self, policy: Policy, rows: int = 32) -> None:
        self.policy, self.sampler = policy, sampler_for(policy, rows)

    async def stream(
        self, prompt: Array, params: SamplingParams, key: int, stops: Sequence[str] = ()
    ) -> AsyncGenerator[Piece, None]:
        """The reply to int32[n] `prompt`, a piece for every token and a last one. Whoever stops listening ends the reply.
        Raises `UserError` for an unusable request."""
        text = TextStream(self.policy.renderer.decode, stops)
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

        def watch(token: int, logp: float) -> bool:
            ended = text.feed(token)
            pieces.put_nowait(Piece(text.take(), token, logp))
            return ended

        work = asyncio.ensure_future(self.sampler.sample(np.asarray(prompt, np.int32), params, key, watch))
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
