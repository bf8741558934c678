"""A sampler whose work is done by servers. Prompt and reply are token ids; the log-probabilities are those of the
distribution that was sampled; every random number of a reply follows from its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from etude.errors import UserError
from etude.models.distribution import check
from etude.models.policy import Policy
from etude.sampling.protocol import Sample, Watch
from etude.scale.fleet import Fleet
from etude.scale.server import Lost, Reply, Server
from etude.text.stream import reached
from etude.types import Array, SamplingParams


class EngineSampler:
    """Samples a policy on a fleet. The weights are those of the last `refresh`."""

    def __init__(self, policy: Policy, fleet: Fleet) -> None:
        self.policy, self.fleet = policy, fleet
        self.stops = tuple(policy.tokenizer.stops)
        self.owner, self.version = fleet.owner(), -1
        self._prompts: set[bytes] = set()  # computed since the last refresh
        self._closed = False

    async def refresh(self) -> None:
        """The servers sample from the policy as it is now."""
        await self.fleet.refresh(self.policy, self.owner)
        if self.version != self.policy.version:
            self._prompts = set()
        self.version = self.policy.version

    async def sample(
        self,
        prompt: Array,
        params: SamplingParams,
        key: int,
        watch: Watch | None = None,
        certainty: bool = False,
    ) -> Sample:
        """As `Sampler.sample`; a reply is cut where its watcher ends it once all of it has come. UserError where
        certainty is asked for: engines do not say it."""
        if certainty:
            raise UserError(
                "engines do not say how certain a reply was; sample in this process, without engines"
            )
        if self._closed:
            raise UserError("this sampler is closed")
        check(params)
        tokens = np.asarray(prompt, np.int32)
        longest = min(self.policy.context, self.fleet.longest or self.policy.context)
        room = longest - len(tokens)
        if not len(tokens) or room < 1:
            raise UserError(f"a prompt has between 1 and {longest - 1} tokens; got {len(tokens)}")
        if tokens.min() < 0 or tokens.max() >= self.policy.config["vocab_size"]:
            raise UserError(f"a prompt holds token {tokens.max()} outside the model's vocabulary")
        if self.version < 0:
            raise UserError("the engines hold no weights yet: refresh the sampler first")
        label, version = self.fleet.label, self.version

        async def question(server: Server) -> Reply:
            reply = await server.sample(
                tokens.tolist(), params, key, min(params.max_tokens, room), self.stops
            )
            if set(reply.versions) != {label}:
                raise Lost(
                    f"{server.address} sampled with the weights {sorted(set(reply.versions))}, not '{label}'"
                )
            return reply

        reply = await self.fleet.ask(key, question)
        name = tokens.tobytes()
        if name not in self._prompts:  # servers compute a prompt once, and keep it until the weights change
            self._prompts.add(name)
            self.policy.meter.prefilled += len(tokens)
        self.policy.meter.generated += len(reply.tokens)
        # Servers are not told of stop strings, since how they cut text and tokens apart is theirs; the rest is dropped here.
        met = reached(self.policy.renderer.decode, reply.tokens, params.stop)
        n = met or len(reply.tokens)
        if watch is not None:
            told = (
                i
                for i, (t, v) in enumerate(zip(reply.tokens[:n], reply.logp[:n], strict=True))
                if watch(t, v)
            )
            if (last := next(told, None)) is not None:
                n = met = last + 1
        return Sample(
            np.array(reply.tokens[:n], np.int32),
            np.minimum(np.array(reply.logp[:n], np.float32), 0.0),
            "cut" if met and reply.tokens[n - 1] not in self.stops else reply.stop,
            version,
        )

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Servers do not wait for anybody."""
        yield

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.fleet.close()
