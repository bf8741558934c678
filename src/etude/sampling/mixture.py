"""Sampling from two models at once: each token is drawn from the geometric mixture of their distributions,

    p(y_t) ~ pi(y_t)^(1 - b) ref(y_t)^b,   that is, from the softmax of (1 - b) z + b z_ref

so both must read every token of a reply. In this process only: servers have one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from etude.errors import UserError
from etude.models.attention import native
from etude.models.distribution import draw
from etude.models.head import logits
from etude.models.meter import Meter
from etude.models.weights import Weights
from etude.sampling.dense import Engine
from etude.sampling.hf import TransformersSampler
from etude.sampling.native import NativeSampler
from etude.sampling.paged import PagedEngine
from etude.sampling.protocol import Sampler
from etude.types import Array, SamplingParams


def mixture(sampler: Any, other: Any, share: float) -> Sampler:
    """A sampler of the mixture of two samplers' models, `share` (b) being that of `other`. Raises UserError where one of them
    is sampled elsewhere."""
    if hasattr(sampler, "mixed_with"):  # one that knows by itself, as the exact ones of tests do
        found: Sampler = sampler.mixed_with(other, share)
        return found
    one, two = getattr(sampler, "own", sampler), getattr(other, "own", other)
    if isinstance(one, NativeSampler) and isinstance(two, NativeSampler):
        return MixedNative(one, two, share)
    if isinstance(one, TransformersSampler) and isinstance(two, TransformersSampler):
        return MixedTransformers(one, two, share)
    raise UserError(
        "a mixture of two models is sampled token by token in this process; train this method without engines"
    )


class MixedNative(NativeSampler):
    """Two engines that are fed the same tokens."""

    def __init__(self, one: NativeSampler, other: NativeSampler, share: float) -> None:
        self.other, self.share = other, share
        super().__init__(one.policy, one.max_rows, one.memory // 2)

    def _reset(self) -> None:
        theirs = self.other.weights
        self.engine = MixedEngine(  # type: ignore[assignment]
            _engine(self.weights), _engine(theirs), self.share, self.other.policy.meter
        )

    def _logits(self, state: Tensor) -> Tensor:
        mixed: Tensor = self.engine.mixed(state)  # type: ignore[union-attr]
        return mixed


def _engine(weights: Weights) -> Engine | PagedEngine:
    return PagedEngine(weights) if native(weights) else Engine(weights)


class MixedEngine:
    """The interface of `sampling.dense.Engine`: hidden states of the two models stand side by side, f32[n, D + D']."""

    def __init__(
        self, one: Engine | PagedEngine, other: Engine | PagedEngine, share: float, meter: Meter
    ) -> None:
        self.both: tuple[Any, Any] = (one, other)
        self.share, self.meter, self.unit = share, meter, one.unit

    @property
    def rows(self) -> list[Any]:
        return list(zip(*(e.rows for e in self.both), strict=True))

    def bytes_per_token(self) -> int:
        return sum(e.bytes_per_token() for e in self.both)

    def uncached(self, prompt: Array) -> int:
        return max(e.uncached(prompt) for e in self.both)

    def prefill(self, prompts: Sequence[Array]) -> tuple[list[Any], Tensor]:
        self.meter.prefilled += sum(self.both[1].uncached(p) for p in prompts)
        (held, hidden), (theirs, other) = (e.prefill(prompts) for e in self.both)
        return list(zip(held, theirs, strict=True)), torch.cat([hidden, other], 1)

    def add_row(self, prompt: Any, token: int) -> None:
        for engine, held in zip(self.both, prompt, strict=True):
            engine.add_row(held, token)

    def feed(self, tokens: Sequence[int]) -> None:
        for engine in self.both:
            engine.feed(tokens)

    def cache(self, tokens: Array, held: Any) -> None:
        for engine, part in zip(self.both, held, strict=True):
            engine.cache(tokens, part)

    def remove_row(self, number: int) -> None:
        for engine in self.both:
            engine.remove_row(number)

    def release(self, prompts: Sequence[Any]) -> None:
        for number, engine in enumerate(self.both):
            engine.release([p[number] for p in prompts])

    def step(self) -> Tensor:
        return torch.cat([e.step() for e in self.both], 1)

    def mixed(self, hidden: Tensor) -> Tensor:
        """f32[n, V]: (1 - b) z + b z_ref."""
        width = self.both[0].weights.config.width
        z = logits(hidden[:, :width], self.both[0].weights.head)
        return z.float().lerp(logits(hidden[:, width:], self.both[1].weights.head).float(), self.share)

    @torch.no_grad()
    def draw(self, hidden: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        self.meter.generated += len(hidden)
        return draw(self.mixed(hidden), params, uniform)


class MixedTransformers(TransformersSampler):
    """The other model has a cache of its own over the same rows."""

    def __init__(self, one: TransformersSampler, other: TransformersSampler, share: float) -> None:
        self.beside, self.share = TransformersSampler(other.policy, one.max_rows), share
        super().__init__(one.policy, one.max_rows)

    def _reset(self) -> None:
        super()._reset()
        self.beside.cache = None

    def _read(self, tokens: Tensor, positions: Tensor) -> Tensor:
        z = super()._logits(super()._read(tokens, positions)).float()
        self.beside.seen = self.seen
        meter = self.beside.policy.meter
        meter.prefilled += int(self.seen.sum()) if tokens.shape[1] > 1 else 0
        meter.generated += len(tokens)
        with self.beside.backbone.active():
            theirs = self.beside._logits(self.beside._read(tokens, positions))
        return z.lerp(theirs.float(), self.share)

    def _choose(self, state: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        return draw(state, params, uniform)

    def _logits(self, state: Tensor) -> Tensor:
        return state

    def _compact(self) -> None:
        keep = [i for i in range(len(self.live)) if i not in self._gone]
        if self._gone and keep:
            self.beside.cache.batch_select_indices(torch.tensor(keep).to(self.beside.backbone.device))
        super()._compact()
