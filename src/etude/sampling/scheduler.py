"""What samplers in this process share: requests, the random numbers that decide them, and their scheduler.

Before every step the event loop is given the chance to hand in more requests, until nothing new comes and no
`hold` is open: which requests share a step then follows from the program alone, not from the clock.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from etude.errors import UserError
from etude.models.distribution import check, draw
from etude.models.policy import Policy
from etude.sampling.protocol import Sample, Uniforms, Watch
from etude.text.stream import TextStream
from etude.types import Array, SamplingParams

QUIET = 3  # rounds of the event loop without a new request before a step is taken


@dataclass(eq=False)
class Pending:
    prompt: Array
    params: SamplingParams
    uniforms: Uniforms
    limit: int  # tokens at most
    future: asyncio.Future[Sample]
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    version: int = 0
    watch: Watch | None = None
    cut: bool = False  # the watcher ended the reply
    certainty: list[float] | None = None  # None: not asked for


class Scheduler:
    """A sampler whose work is done in steps between which requests may come and go. A subclass says what a
    step is (`_step`), how a request leaves (`_drop`), and how everything is dropped (`_reset`)."""

    def __init__(self, policy: Policy, max_rows: int) -> None:
        if max_rows < 1:
            raise UserError(f"a sampler needs max_rows of at least 1; got {max_rows}")
        self.policy, self.max_rows = policy, max_rows
        self.stops = frozenset(policy.tokenizer.stops)
        self.waiting: deque[Pending] = deque()
        self.live: list[Pending] = []
        self._open: set[Pending] = set()  # not answered yet, wherever they are
        self._submitted = 0
        self._holds = 0
        self._free = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def _step(self) -> None:
        raise NotImplementedError

    def _reset(self) -> None:
        raise NotImplementedError

    def _drop(self, number: int) -> None:
        """Removes live request `number`, whose caller no longer waits or was answered."""
        raise NotImplementedError

    async def sample(
        self,
        prompt: Array,
        params: SamplingParams,
        key: int,
        watch: Watch | None = None,
        certainty: bool = False,
    ) -> Sample:
        """As `Sampler.sample`. `watch` sees every token; `certainty`: the sample says how far each of its tokens'
        distributions was from a uniform one."""
        if self._closed:
            raise UserError("this sampler is closed")
        check(params)
        tokens = np.asarray(prompt, np.int32)
        room = self.policy.context - len(tokens)
        if not len(tokens) or room < 1:
            raise UserError(f"a prompt has between 1 and {self.policy.context - 1} tokens; got {len(tokens)}")
        if tokens.min() < 0 or tokens.max() >= self.policy.config["vocab_size"]:
            raise UserError(f"a prompt holds token {tokens.max()} outside the model's vocabulary")
        loop = asyncio.get_running_loop()
        limit, future = min(params.max_tokens, room), loop.create_future()
        watching = self._until(params.stop, watch)
        found: list[float] | None = [] if certainty else None
        request = Pending(tokens, params, Uniforms(key), limit, future, watch=watching, certainty=found)
        self.waiting.append(request)
        self._open.add(request)
        self._submitted += 1
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            return await request.future
        finally:
            self._open.discard(request)

    def _until(self, stops: Sequence[str], watch: Watch | None) -> Watch | None:
        """Ends a reply with the token that completes a stop string, or where `watch` does."""
        if not stops:
            return watch
        text = TextStream(self.policy.renderer.decode, stops)

        def met(token: int, logp: float) -> bool:
            return text.feed(token) | (watch is not None and watch(token, logp))

        return met

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        self._holds += 1
        self._free.clear()
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._free.set()

    async def refresh(self) -> None:
        """The weights are the policy's own."""

    async def close(self) -> None:
        self._closed = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(UserError("the sampler was closed"))

    def _fail(self, error: BaseException) -> None:
        for request in self._open:
            if not request.future.done():
                request.future.set_exception(error)
        self.live, self.waiting = [], deque()
        self._reset()

    async def _run(self) -> None:
        try:
            while self.waiting or self.live:
                await self._quiet()
                self._drop_abandoned()
                if self.waiting or self.live:
                    self._step()
        except Exception as error:
            self._fail(error)

    async def _quiet(self) -> None:
        """Returns when nothing new has been asked for in a few rounds of the event loop and nothing is held."""
        rounds, seen = 0, self._submitted
        while rounds < QUIET:
            await asyncio.sleep(0)
            if self._holds:
                await self._free.wait()
            rounds = rounds + 1 if seen == self._submitted else 0
            seen = self._submitted

    def _drop_abandoned(self) -> None:
        """Drops requests whose caller no longer waits."""
        self.waiting = deque(r for r in self.waiting if not r.future.done())
        for i in reversed(range(len(self.live))):
            if self.live[i].future.done():
                self._drop(i)

    def _choose(self, state: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities at what `_draw` was given: logits, unless a subclass says otherwise."""
        return draw(state, params, uniform)

    def _logits(self, state: Tensor) -> Tensor:
        """f32[n, V] at what `_draw` was given."""
        return state

    def _note_certainty(self, requests: list[Pending], state: Tensor) -> None:
        """KL(U || p) = log sum_j exp z_j - mean_j z_j - log V of every request that asked for it, at temperature 1 whatever it
        is sampled with."""
        asking = [i for i, r in enumerate(requests) if r.certainty is not None]
        if not asking:
            return
        with torch.no_grad():
            z = self._logits(state if len(asking) == len(requests) else state[torch.tensor(asking)]).float()
            found = torch.logsumexp(z, 1) - z.mean(1) - math.log(z.shape[1])
        for i, value in zip(asking, found.tolist(), strict=True):
            kept = requests[i].certainty
            assert kept is not None
            kept.append(value)

    def _draw(self, requests: list[Pending], state: Tensor) -> list[int]:
        """Draws for all requests and records tokens and log-probabilities. One row of `state` each."""
        self._note_certainty(requests, state)
        uniform = torch.tensor([r.uniforms.next() for r in requests], dtype=torch.float64)
        tokens = torch.empty(len(requests), dtype=torch.int64)
        logp = torch.empty(len(requests))
        for params in dict.fromkeys(_settings(r.params) for r in requests):
            rows = torch.tensor([i for i, r in enumerate(requests) if _settings(r.params) == params])
            every = len(rows) == len(requests)
            part = self._choose(state if every else state[rows], params, uniform[rows])
            tokens[rows], logp[rows] = part[0].cpu(), part[1].cpu()
        for request, token, value in zip(requests, tokens.tolist(), logp.tolist(), strict=True):
            request.tokens.append(token)
            request.logp.append(value)
            if request.watch is not None and not request.future.done():
                request.cut = request.watch(token, value)
        self.policy.meter.generated += len(requests)
        return tokens.tolist()

    def _finished(self, request: Pending) -> bool:
        """Answers a request that has come to its end."""
        ended = request.tokens[-1] in self.stops
        if not (ended or request.cut) and len(request.tokens) < request.limit:
            return False
        if not request.future.done():
            request.future.set_result(
                Sample(
                    np.array(request.tokens, np.int32),
                    np.array(request.logp, np.float32),
                    "end" if ended else "cut" if request.cut else "length",
                    request.version,
                    None if request.certainty is None else np.array(request.certainty, np.float32),
                )
            )
        return True


def _settings(params: SamplingParams) -> SamplingParams:
    """What of the settings concerns one draw."""
    return SamplingParams(params.temperature, params.top_k, params.top_p, params.greedy)
