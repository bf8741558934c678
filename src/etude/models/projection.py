"""From the hidden states of a transformers module to distributions, for the trainer and for the sampler alike. Where logits
are the product of a hidden state and a matrix, and nothing else, this is the head of the native engine (`models.head`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from etude.models import distribution, head
from etude.types import SamplingParams

ROWS = 1024  # rows whose logits are held at once, where they are more than a product


@dataclass(frozen=True)
class Tail:
    """What an architecture does to the output projection's logits."""

    factor: float = 1.0
    cap: float | None = None

    @property
    def plain(self) -> bool:
        return self.factor == 1 and self.cap is None

    def __call__(self, logits: Tensor) -> Tensor:
        x = logits if self.factor == 1 else logits * self.factor
        return x if self.cap is None else self.cap * torch.tanh(x / self.cap)


def tail_of(config: Any) -> Tail:
    """Gemma caps its logits, Cohere multiplies them, Granite divides them. What else there is `packed.obstacle` notices."""
    factor = float(getattr(config, "logit_scale", None) or 1.0)
    factor /= float(getattr(config, "logits_scaling", None) or 1.0)
    return Tail(factor, getattr(config, "final_logit_softcapping", None))


class Projection:
    """The output projection of a module, with what follows it."""

    def __init__(self, module: Any) -> None:
        self.module, self.tail = module, tail_of(module.config.get_text_config())

    @property
    def matrix(self) -> Tensor | None:
        """[V, D], where logits are its product with a hidden state and nothing else."""
        last = self.module.get_output_embeddings()
        plain = type(last) is nn.Linear and last.bias is None and self.tail.plain
        return last.weight if plain else None

    def logits(self, state: Tensor) -> Tensor:
        """f32[n, V] of f32[n, D] hidden states."""
        last = self.module.get_output_embeddings()
        return self.tail(last(state.to(last.weight.dtype)).float())

    def read(
        self, state: Tensor, chosen: Tensor, params: SamplingParams, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """f32[M] log-probabilities of int64[M] `chosen`, and entropies, at f32[M, D] hidden states. Forward and backward,
        the logits of a few rows at a time are held."""
        if (matrix := self.matrix) is not None:
            return head.log_probabilities(state, matrix, chosen, params, entropy)

        def part(rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
            return head.chosen_log_probabilities(self.logits(rows), tokens, params, entropy)

        found = [
            checkpoint(part, a, b, use_reentrant=False, preserve_rng_state=False)
            for a, b in zip(state.split(ROWS), chosen.split(ROWS), strict=True)
        ]
        return torch.cat([logp for logp, _ in found]), torch.cat([spread for _, spread in found])

    def draw(self, state: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """One token per row of f32[n, D] hidden states, and its log-probability."""
        if (matrix := self.matrix) is not None:
            return head.draw(state, matrix, params, uniform)
        return distribution.draw(self.logits(state), params, uniform)
