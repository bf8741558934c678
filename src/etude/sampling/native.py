"""The native sampler: continuous batching over `sampling.dense`. One step serves all rows; finished rows leave
at once, waiting requests join at any step, identical prompts waiting together are computed once, and so are prompts
that go on from an earlier request.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from etude.errors import UserError
from etude.models.attention import native
from etude.models.head import logits
from etude.models.policy import Policy
from etude.models.weights import Weights
from etude.sampling.dense import Engine
from etude.sampling.paged import PagedEngine
from etude.sampling.scheduler import Pending, Scheduler
from etude.types import Array, SamplingParams

PREFILL = 2048  # prompt tokens computed at once
KEPT = 4  # a part of the memory in so many is for what earlier requests have computed


class NativeSampler(Scheduler):
    """`max_rows` replies at once; `memory` bounds the bytes of keys and values (one request is always let in)."""

    def __init__(self, policy: Policy, max_rows: int = 128, memory: int = 2 << 30) -> None:
        super().__init__(policy, max_rows)
        self.memory = memory
        self.weights = self._weights()
        self._reset()

    def _weights(self) -> Weights:
        weights = self.policy.backbone.native()
        if weights is None:
            raise UserError("the native sampler needs weights of the Llama family")
        return weights

    def _reset(self) -> None:
        self.engine: Engine | PagedEngine = (
            PagedEngine(self.weights, self.memory // KEPT) if native(self.weights) else Engine(self.weights)
        )

    def _choose(self, state: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        return self.engine.draw(state, params, uniform)

    def _logits(self, state: Tensor) -> Tensor:
        return logits(state, self.weights.head)

    def _step(self) -> None:
        self._admit()
        if self.live:
            self._advance()

    def _admit(self) -> None:
        """Prefills waiting prompts, as far as there is room, and draws their first tokens."""
        while self.waiting and len(self.live) < self.max_rows:
            chosen: list[Pending] = []
            prompts: dict[bytes, Array] = {}
            size = 0
            while self.waiting and len(self.live) + len(chosen) < self.max_rows:
                request = self.waiting[0]
                name = request.prompt.tobytes()
                more = 0 if name in prompts else self.engine.uncached(request.prompt)
                if chosen and (size + more > PREFILL or not self._fits([*self.live, *chosen, request])):
                    break
                if not chosen and self.live and not self._fits([*self.live, request]):
                    return
                prompts.setdefault(name, request.prompt)
                size += more
                chosen.append(self.waiting.popleft())
            self._first(chosen, prompts)
            self.policy.meter.prefilled += size

    def _fits(self, requests: list[Pending]) -> bool:
        """Whether keys and values of these requests stay within memory, at their longest."""
        longest = max(len(r.prompt) + r.limit for r in requests)
        unit = self.engine.unit
        return -(-longest // unit) * unit * len(requests) * self.engine.bytes_per_token() <= self.memory

    def _first(self, chosen: list[Pending], prompts: dict[bytes, Array]) -> None:
        held, hidden = self.engine.prefill(list(prompts.values()))
        order = {name: i for i, name in enumerate(prompts)}
        which = [order[r.prompt.tobytes()] for r in chosen]
        for request in chosen:
            request.version = self.policy.version
        tokens = self._draw(chosen, hidden[torch.tensor(which)])
        for request, place, token in zip(chosen, which, tokens, strict=True):
            if self._finished(request):
                self.engine.cache(request.prompt, held[place])  # type: ignore[arg-type]
            else:
                self.engine.add_row(held[place], token)  # type: ignore[arg-type]
                self.live.append(request)
        self.engine.release(held)  # type: ignore[arg-type]

    def _advance(self) -> None:
        """One token for every live row."""
        tokens = self._draw(self.live, self.engine.step())
        self.engine.feed(tokens)
        for i in reversed(range(len(self.live))):
            if self._finished(self.live[i]):
                self._drop(i)

    def _drop(self, number: int) -> None:
        done = self.live[number]
        said = np.array(done.tokens[:-1], np.int32)  # the last token was never fed
        self.engine.cache(np.concatenate([done.prompt, said]), self.engine.rows[number])  # type: ignore[arg-type]
        self.engine.remove_row(number)
        moved = self.live.pop()
        if number < len(self.live):
            self.live[number] = moved
