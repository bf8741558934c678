"""What every sampler is: native, transformers, or remote."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from etude.types import Array, SamplingParams


class Unanswered(Exception):
    """No reply could be had, through no fault of the request."""


@dataclass(frozen=True)
class Sample:
    """A reply as it was sampled. The stop token, or the one that completes a stop string, where one ended it, is the last of
    `tokens`."""

    tokens: Array  # int32[n], n >= 1
    logp: Array  # float32[n], under the request's settings
    stop: str  # "end" | "length" | "cut": by a stop string, or by the one who watched it
    version: int  # of the policy that sampled it
    certainty: Array | None = (
        None  # float32[n], where it was asked for: KL(uniform || p) of each token's distribution
    )


Watch = Callable[[int, float], bool]
"""Told of every token of a reply, with its log-probability, as soon as it is drawn; True ends the reply there. Must not
raise."""


class Sampler(Protocol):
    """Answers requests; those that wait at the same time are answered together."""

    async def sample(
        self,
        prompt: Array,
        params: SamplingParams,
        key: int,
        watch: Watch | None = None,
        certainty: bool = False,
    ) -> Sample:
        """Continues int32[n] `prompt`. Token i uses the i-th number of a stream named by `key` alone, so the
        reply does not depend on what else is being sampled. `watch` may end the reply; `certainty`: the sample says how
        far each token's distribution was from a uniform one. Raises `UserError` for an unusable request, `Unanswered`
        where nobody answers it."""
        ...

    def hold(self) -> AbstractAsyncContextManager[None]:
        """`async with sampler.hold():` around a wait for something outside (a checker in a child process), so
        that the sampler does not start a step before its answer is in: which requests share a step, and so
        the last bits of a result, then do not depend on how fast the outside is."""
        ...

    async def refresh(self) -> None:
        """What is sampled from here on is the policy as it is now. A sampler that reads the policy's own weights has
        nothing to do."""
        ...

    async def close(self) -> None:
        """Ends the sampler; waiting requests fail. It may be called twice."""
        ...


class Uniforms:
    """The numbers that decide one request: a counter-based stream, read token by token."""

    def __init__(self, key: int) -> None:
        self._stream = np.random.Generator(np.random.Philox(key=key))
        self._ready: list[float] = []

    def next(self) -> float:
        """In [0, 1), float64."""
        if not self._ready:
            self._ready = self._stream.random(32).tolist()[::-1]
        return self._ready.pop()
