"""What an answer costs, and what it may cost: every token that any model computes for one problem.

A token forwarded costs 2 N FLOPs (arXiv 2001.08361, without attention), N the size of the model that computes it. A prompt
that begins like something the same model has computed for this problem costs only the rest. So a charge depends on the
problem alone, never on what is sampled beside it; what the models' own meters count differs by the pages that the sampler's
cache shares between problems, or loses.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np

from etude.errors import UserError
from etude.sampling.protocol import Sample, Watch
from etude.types import Array, SamplingParams

LIMIT = re.compile(r"(?P<amount>[\d.]+(?:e[+-]?\d+)?)-?(?P<unit>flops|tokens)(?:-a-problem)?")


class Exhausted(Exception):
    """The problem's budget does not pay for another token."""


@dataclass(frozen=True)
class Limit:
    """What one problem may cost: FLOPs of all models, and tokens that they generate."""

    flops: float = inf
    tokens: float = inf

    @classmethod
    def parse(cls, text: str) -> Limit:
        """`2e10-flops-a-problem` or `500-tokens-a-problem`. Raises UserError."""
        found = LIMIT.fullmatch(text.strip())
        if not found or not float(found["amount"]) > 0:
            raise UserError(
                f"an inference budget looks like 2e10-flops-a-problem or 500-tokens-a-problem; got '{text}'"
            )
        return cls(**{found["unit"]: float(found["amount"])})

    def __str__(self) -> str:
        parts = [
            f"{self.flops:g} FLOPs" if self.flops < inf else "",
            f"{self.tokens:g} tokens" if self.tokens < inf else "",
        ]
        return " and ".join(p for p in parts if p) + " a problem" if any(parts) else "no limit"


@dataclass
class Spent:
    """What was computed for one problem by one model."""

    prompt: int = 0  # tokens, without what was known already
    shared: int = 0  # tokens of prompts that were known already
    generated: int = 0
    scored: int = 0  # forwarded to be judged, not to be gone on from
    calls: int = 0
    flops: float = 0.0


@dataclass
class Ledger:
    """The account of one problem. Replies under way hold a reservation for their longest, so that together they never
    cost more than the limit; one that does not fit waits for others to end, and is cut short where none is under way."""

    limit: Limit = field(default_factory=Limit)
    spent: dict[str, Spent] = field(default_factory=dict)  # by model
    exhausted: bool = False  # something was refused or cut short
    _known: dict[str, dict[tuple[int, int], int]] = field(
        default_factory=dict
    )  # model -> (beginning, token) -> beginning
    _reserved: dict[int, tuple[float, int]] = field(default_factory=dict)  # reply -> FLOPs and tokens
    _numbers: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def flops(self) -> float:
        return sum(s.flops for s in self.spent.values())

    @property
    def generated(self) -> int:
        return sum(s.generated for s in self.spent.values())

    def of(self, model: str) -> Spent:
        return self.spent.setdefault(model, Spent())

    def known(self, model: str, tokens: Array) -> int:
        """How many of the tokens begin like something that this model has computed already."""
        steps, at = self._known.get(model, {}), 0
        for depth, token in enumerate(tokens.tolist()):
            if (at := steps.get((at, token), -1)) < 0:
                return depth
        return len(tokens)

    def _learn(self, model: str, tokens: Array) -> None:
        steps, at = self._known.setdefault(model, {}), 0
        for token in tokens.tolist():
            at = steps.setdefault((at, token), len(steps) + 1)

    async def reserve(self, model: str, per_token: float, prompt: Array, longest: int) -> tuple[int, int]:
        """A reservation's number, and the tokens that the reply may have. Raises Exhausted."""
        while True:
            fresh = len(prompt) - self.known(model, prompt)
            flops = self.limit.flops - self.flops - sum(f for f, _ in self._reserved.values())
            tokens = self.limit.tokens - self.generated - sum(t for _, t in self._reserved.values())
            fits = min(tokens, (flops - fresh * per_token) / per_token if per_token else inf, longest)
            if fits < longest and self._reserved:
                self._changed.clear()
                await self._changed.wait()
                continue
            if fits < 1:
                self.exhausted = True
                self._changed.set()
                raise Exhausted
            self.exhausted |= fits < longest
            self._numbers += 1
            account = self.of(model)
            self._learn(model, prompt)
            account.prompt += fresh
            account.shared += len(prompt) - fresh
            account.flops += fresh * per_token
            account.calls += 1
            self._reserved[self._numbers] = (int(fits) * per_token, int(fits))
            return self._numbers, int(fits)

    def settle(self, number: int, model: str, per_token: float, prompt: Array, reply: Array) -> None:
        """Charges what was said, and lets go of the reservation."""
        del self._reserved[number]
        account = self.of(model)
        account.generated += len(reply)
        account.flops += len(reply) * per_token
        self._learn(model, np.concatenate([prompt, reply]))
        self._changed.set()

    def score(self, model: str, per_token: float, tokens: int) -> None:
        """Charges tokens that are forwarded to be judged. Raises Exhausted where they cost more than is left."""
        if tokens * per_token > self.limit.flops - self.flops - sum(f for f, _ in self._reserved.values()):
            self.exhausted = True
            raise Exhausted
        account = self.of(model)
        account.scored += tokens
        account.calls += 1
        account.flops += tokens * per_token

    def to_dict(self) -> dict[str, Any]:
        """Facts for notes and results."""
        return {
            "flops": self.flops,
            "tokens": self.generated,
            "exhausted": self.exhausted,
            "models": {name: vars(s) for name, s in self.spent.items()},
        }


def per_token(policy: Any) -> float:
    """FLOPs of a token forwarded."""
    return 2.0 * float(policy.meter.size)


@dataclass
class Charged:
    """A sampler whose replies are charged to a ledger under a model's name. `certainty`: samples say how certain they were,
    where the sampler can say it."""

    sampler: Any
    ledger: Ledger
    model: str
    certainty: bool = False

    @property
    def policy(self) -> Any:
        return self.sampler.policy

    async def sample(
        self, prompt: Array, params: SamplingParams, key: int, watch: Watch | None = None
    ) -> Sample:
        cost = per_token(self.policy)
        number, longest = await self.ledger.reserve(self.model, cost, prompt, params.max_tokens)
        said = np.zeros(0, np.int32)
        more: dict[str, Any] = {} if watch is None else {"watch": watch}
        more |= {"certainty": True} if self.certainty else {}
        try:
            sample = await self.sampler.sample(prompt, replace(params, max_tokens=longest), key, **more)
            said = sample.tokens
        finally:
            self.ledger.settle(number, self.model, cost, prompt, said)
        return sample

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        async with self.sampler.hold():
            yield

    async def refresh(self) -> None:
        await self.sampler.refresh()

    async def close(self) -> None: ...
