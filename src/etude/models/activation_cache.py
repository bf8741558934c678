"""What decoding has computed, kept for the gradient. The rows of a reply were forwarded when it was sampled, with the
weights that are about to be trained; sampler and trainer agree to the last bit, so the trainer need not forward them
again. `Policy.recording` fills a tape, `Policy.publish` ends it; rows that are not on it are computed as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.autograd import Function

from etude.models.attention import MemberAttention
from etude.models.forward import GatedLinear, NormLinear, TurnHeads, row_scale
from etude.models.layout import Layout
from etude.models.weights import Layer, Weights
from etude.types import Array

LIMIT = psutil.virtual_memory().total // 4  # bytes; a tape that grows beyond is dropped


class Rows(NamedTuple):
    """What the backward pass of one layer reads, of some rows."""

    hidden: Tensor  # f32[n, D], before the first norm
    z: Tensor  # [n, H + 2K, hd]
    attended: Tensor  # [n, H * hd]
    total: Tensor  # f32[n, H], log-sum-exp of the scores
    middle: Tensor  # f32[n, D], before the second norm
    gate_up: Tensor  # [n, 2 * I]


class ActivationCache:
    """Forwarded rows in the order of their forwarding, and which sequence lies where."""

    def __init__(self) -> None:
        self.parts: list[list[Rows]] = []  # of one forward pass each, by layers
        self.last: list[Tensor] = []  # f32[n, D], before the last norm
        self.rows = 0
        self.bytes = 0
        self.places: dict[bytes, Array] = {}

    def add(self, layers: list[Rows], last: Tensor) -> int:
        """Keeps a forward pass; returns the number of its first row."""
        first, self.rows = self.rows, self.rows + len(last)
        self.bytes += len(layers) * sum(x.nbytes for x in layers[0]) + last.nbytes
        if self.bytes > LIMIT:
            self.parts, self.last, self.places = [], [], {}
        else:
            self.parts.append(layers)
            self.last.append(last)
        return first

    def know(self, tokens: Array, places: Array) -> None:
        """The rows of a sequence, int32[n] tokens in int64[n] rows."""
        if self.bytes <= LIMIT:
            self.places[tokens.astype(np.int32).tobytes()] = places

    def find(self, tokens: Tensor, sequence: Tensor) -> Tensor | None:
        """int64[N]: the rows of packed tokens; None where a sequence is not on the tape."""
        number = sequence.numpy()
        bounds = np.flatnonzero(np.diff(number, prepend=-1, append=-1))
        parts = np.split(tokens.numpy().astype(np.int32), bounds[1:-1])
        found = [self.places.get(part.tobytes()) for part in parts]
        if not found or any(x is None for x in found):
            return None
        return torch.from_numpy(np.concatenate([x for x in found if x is not None]))

    def read(self, rows: Tensor) -> tuple[list[Rows], Tensor]:
        """Layers and last hidden states of int64[R] rows."""
        ends = np.cumsum([len(x) for x in self.last])
        order = rows.argsort()
        cuts = np.searchsorted(rows[order].numpy(), ends)
        picks = []  # of every part: which of its rows, and where they go
        for k, (a, b) in enumerate(zip([0, *cuts], cuts, strict=False)):
            if b > a:
                first = int(ends[k]) - len(self.last[k])
                picks.append((k, rows[order[a:b]] - first, order[a:b]))

        def taken(pieces: Sequence[Tensor]) -> Tensor:
            out = pieces[0].new_empty(len(rows), *pieces[0].shape[1:])
            for k, which, where in picks:
                out.index_copy_(0, where, pieces[k].index_select(0, which))
            return out

        layers = [
            Rows(*(taken([part[i][field] for part in self.parts]) for field in range(len(Rows._fields))))
            for i in range(len(self.parts[0]))
        ]
        return layers, taken(self.last)


def replayed(weights: Weights, embedded: Tensor, rows: Layout, layers: list[Rows], last: Tensor) -> Tensor:
    """f32[R, D] `last`, with the gradient that `llama.blocks` would have; `embedded` f32[R, D] enters the first
    layer."""
    leaves = [x for layer in weights.layers for x in layer]
    out: Tensor = Replay.apply(embedded, weights, rows, layers, last, *leaves)
    return out


class Replay(Function):
    @staticmethod
    def forward(
        ctx: Any,
        embedded: Tensor,
        weights: Weights,
        rows: Layout,
        layers: list[Rows],
        last: Tensor,
        *leaves: Tensor | None,
    ) -> Tensor:
        ctx.weights, ctx.rows, ctx.layers = weights, rows, layers
        return last

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weights, rows, layers = ctx.weights, ctx.rows, ctx.layers
        angles = weights.rope(rows.positions)
        found: list[Layer] = []
        for i in reversed(range(len(layers))):
            grad, slopes = _layer(weights, i, layers.pop(), rows, angles, grad)
            found.append(slopes)
        return grad, None, None, None, None, *(x for layer in reversed(found) for x in layer)


def _layer(
    weights: Weights, i: int, kept: Rows, rows: Layout, angles: tuple[Tensor, Tensor], grad: Tensor
) -> tuple[Tensor, Layer]:
    """The gradient before layer i and those of its leaves, by the backward passes of its functions."""
    shape, layer = weights.shape, weights.layers[i]
    eps, turned = shape.eps, shape.heads + shape.kv_heads
    sizes = shape.heads, shape.kv_heads, shape.head_dim, shape.windows[i]
    slope, down = GatedLinear.backward(_saved(kept.gate_up, layer.down), grad.to(kept.gate_up.dtype))
    saved = _saved(kept.middle, row_scale(kept.middle, layer.norm2, eps), layer.norm2, layer.gate_up)
    saved.needs_input_grad[3] = False
    more, norm2, gate_up, *_ = NormLinear.backward(saved, slope)
    grad = grad + more
    slope = grad.to(kept.attended.dtype)
    o = slope.t() @ kept.attended
    saved = _saved(kept.z, rows.members, kept.attended, kept.total, sizes=sizes)
    slope = MemberAttention.backward(saved, slope @ layer.o)[0]
    slope = TurnHeads.backward(_saved(*angles, turned=turned), slope)[0]
    saved = _saved(kept.hidden, row_scale(kept.hidden, layer.norm1, eps), layer.norm1, layer.qkv)
    saved.needs_input_grad[3] = layer.qkv_bias is not None
    more, norm1, qkv, bias, _ = NormLinear.backward(saved, slope.view(len(slope), -1))
    return grad + more, Layer(norm1, qkv, bias, None, None, o, norm2, gate_up, down)


def _saved(*tensors: Tensor, **more: Any) -> Any:
    """Stands for the context that autograd hands to a backward pass."""
    return SimpleNamespace(saved_tensors=tensors, needs_input_grad=[True] * 5, **more)
