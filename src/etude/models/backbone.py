"""What a `Policy` stands on: something with weights that says the log-probabilities of a batch. The native one
is here; `models.hf` has the one for every other architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.batch import Batch
from etude.models.attention import attender, key_unit
from etude.models.config import ModelConfig
from etude.models.forward import embedded, finished, trunk
from etude.models.head import log_probabilities
from etude.models.hooks import Hook, Hooks
from etude.models.layout import Layout, layout
from etude.models.outputs import Outputs
from etude.models.replay import replayed
from etude.models.weights import Weights


class Backbone(Protocol):
    """Weights and a forward pass. Counts returned by `outputs` are rows forwarded."""

    precision: str
    size: int  # parameters that act on a token
    context: int  # longest sequence in tokens

    @property
    def device(self) -> torch.device: ...

    @property
    def engine(self) -> str:
        """What computes, for people."""
        ...

    def outputs(self, batch: Batch, needs: frozenset[str], inputs: Tensor | None) -> tuple[Outputs, int]: ...

    @property
    def hooks(self) -> Hooks | None:
        """What is attached."""
        ...

    def attach(self, hooks: Sequence[Hook]) -> None:
        """Computes and is sampled under these hooks from here on. UserError where it cannot."""
        ...

    def parameters(self) -> list[tuple[str, nn.Parameter]]: ...
    def accumulate(self) -> None: ...
    def discard(self) -> None: ...
    def publish(self) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...
    def clone(self, frozen: bool) -> Backbone: ...

    def native(self) -> Weights | None:
        """What a native sampler reads: up to date after every `publish`; None where it cannot."""
        ...

    def export(self) -> Iterable[tuple[str, Tensor]]:
        """All weights by the names transformers reads (adapters merged), and our heads as `heads.*`."""
        ...

    def exact_logits(self, tokens: Tensor, buffers: Mapping[str, Tensor]) -> Tensor:
        """f32[n, V] of one sequence int64[n], of the float32 masters and in float32; no gradients. `buffers`: float32
        constants that an architecture may have rounded with its weights."""
        ...


class NativeBackbone:
    """The Llama family on our own forward pass."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.precision = weights.precision
        self.size = _active(weights.config)
        self.context = weights.config.context

    @property
    def device(self) -> torch.device:
        return torch.device(self.weights.device)

    @property
    def engine(self) -> str:
        return "native"

    def outputs(self, batch: Batch, needs: frozenset[str], inputs: Tensor | None) -> tuple[Outputs, int]:
        weights = self.weights
        tokens = batch.tokens if inputs is None else inputs
        wanted = batch.needed.nonzero()[:, 0]
        read = predicting(wanted)
        # what comes after the last token that predicts a wanted one is not computed
        last = torch.full((batch.sequences,), -1, device=read.device)
        last.scatter_reduce_(0, batch.sequence[read], read, "amax")
        kept = torch.arange(len(tokens), device=read.device) <= last[batch.sequence]
        rows = layout(tokens[kept], batch.sequence[kept], key_unit(weights.dtype))
        places = None
        if weights.activations is not None and torch.is_grad_enabled():
            places = weights.activations.find(tokens[kept], batch.sequence[kept])
        if weights.hooks is None:
            hidden = forwarded(weights, rows, places)
        else:
            with weights.hooks.computing(first_tokens(rows, kept.nonzero()[:, 0])):
                hidden = forwarded(weights, rows, places)
        state = hidden.index_select(0, rows.row_of[(kept.cumsum(0) - 1)[read]])
        logp, entropy = log_probabilities(
            state, weights.head, batch.tokens[wanted], batch.sampling, "entropy" in needs
        )
        names = weights.head_sizes
        heads = {
            n: F.linear(state, weights.leaves[f"heads.{n}.weight"], weights.leaves[f"heads.{n}.bias"])
            for n in names
        }
        out = assemble(batch, wanted, logp, entropy, heads, state, self.project, needs)
        return replace(out, replayed=places is not None), rows.real

    @property
    def hooks(self) -> Hooks | None:
        return self.weights.hooks

    def attach(self, hooks: Sequence[Hook]) -> None:
        self.weights.attach(Hooks(tuple(hooks), self.weights.config.layers) if hooks else None)

    def project(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden.to(self.weights.dtype), self.weights.head).float()

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.weights.parameters.items())

    def accumulate(self) -> None:
        self.weights.accumulate()

    def discard(self) -> None:
        self.weights.discard()

    def publish(self) -> None:
        self.weights.refresh()

    def state_dict(self) -> dict[str, Tensor]:
        return self.weights.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.weights.load(state.items())

    def clone(self, frozen: bool) -> NativeBackbone:
        return NativeBackbone(self.weights.clone(frozen))

    def native(self) -> Weights:
        return self.weights

    def export(self) -> Iterable[tuple[str, Tensor]]:
        return self.state_dict().items()

    @torch.no_grad()
    def exact_logits(self, tokens: Tensor, buffers: Mapping[str, Tensor]) -> Tensor:
        weights = Weights(self.weights.config, {}, "fp32", frozen=True)
        weights.load(self.export())
        rows = layout(tokens, torch.zeros_like(tokens))
        hidden = trunk(weights, rows.tokens, rows.positions, attender(weights, rows))
        return hidden[rows.row_of] @ weights.head.t()


def forwarded(weights: Weights, rows: Layout, places: Tensor | None) -> Tensor:
    """f32[R, D] hidden states of a layout's rows; taken from the activation cache where int64[N] `places` says where they are."""
    if places is None or weights.activations is None:
        return trunk(weights, rows.tokens, rows.positions, attender(weights, rows))
    order = torch.zeros(len(rows), dtype=torch.int64)  # rows that fill up stand for the first one
    order[rows.row_of] = places
    start = embedded(weights, rows.tokens)
    return finished(weights, replayed(weights, start, rows, *weights.activations.read(order)))


def first_tokens(rows: Layout, tokens: Tensor) -> Tensor:
    """int64[R]: the first of the int64[N] `tokens` (numbers in a batch) that each row holds; -1 for rows that fill up."""
    last = int(tokens.max()) + 1 if len(tokens) else 0
    found = torch.full((len(rows),), last, device=tokens.device)
    found.scatter_reduce_(0, rows.row_of, tokens, "amin")
    return torch.where(found < last, found, -1)


def predicting(tokens: Tensor) -> Tensor:
    """The shift by one, which happens here only: token t is predicted from the state at token t - 1."""
    return tokens - 1


def assemble(
    batch: Batch,
    wanted: Tensor,
    logp: Tensor,
    entropy: Tensor,
    heads: Mapping[str, Tensor],
    state: Tensor,
    project: Callable[[Tensor], Tensor],
    needs: frozenset[str],
) -> Outputs:
    """Lays rows for int64[M] `wanted` tokens out on all N tokens of the batch, 0 elsewhere."""

    def spread(rows: Tensor) -> Tensor:
        blank = torch.zeros((len(batch), *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        return blank.index_copy(0, wanted, rows)

    hidden = spread(state) if "hidden" in needs else None
    return Outputs(
        spread(logp),
        spread(entropy) if "entropy" in needs else None,
        {name: spread(head) for name, head in heads.items()},
        hidden,
        project if hidden is not None else None,
    )


def _active(config: ModelConfig) -> int:
    """Parameters a token is multiplied with: blocks and output projection."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    block = config.width * (2 * q + 2 * kv + 3 * config.inner)
    return config.layers * block + config.vocabulary * config.width
