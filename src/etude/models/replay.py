"""The backward pass of the layers over cached activations, without the forward pass (`models.activation_cache`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.autograd import Function

from etude.models.activation_cache import Rows
from etude.models.attention import MemberAttention
from etude.models.forward import ApplyRope, GatedLinear, NormLinear, row_scale
from etude.models.layout import Layout
from etude.models.weights import Layer, Weights


def replayed(weights: Weights, embedded: Tensor, rows: Layout, layers: list[Rows], last: Tensor) -> Tensor:
    """f32[R, D] `last`, with the gradient that `forward.blocks` would have; `embedded` f32[R, D] enters the first
    layer."""
    leaves = [x for layer in weights.layers for x in layer]
    out: Tensor = ReplayedLayers.apply(embedded, weights, rows, layers, last, *leaves)
    return out


class ReplayedLayers(Function):
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
    config, layer = weights.config, weights.layers[i]
    eps, rotated = config.eps, config.heads + config.kv_heads
    sizes = config.heads, config.kv_heads, config.head_dim, config.windows[i]
    slope, down = GatedLinear.backward(_saved(kept.gate_up, layer.down), grad.to(kept.gate_up.dtype))
    saved = _saved(kept.middle, row_scale(kept.middle, layer.norm2, eps), layer.norm2, layer.gate_up)
    saved.needs_input_grad[3] = False
    more, norm2, gate_up, *_ = NormLinear.backward(saved, slope)
    grad = grad + more
    slope = grad.to(kept.attended.dtype)
    o = slope.t() @ kept.attended
    saved = _saved(kept.z, rows.members, kept.attended, kept.total, sizes=sizes)
    slope = MemberAttention.backward(saved, slope @ layer.o)[0]
    slope = ApplyRope.backward(_saved(*angles, rotated=rotated), slope)[0]
    saved = _saved(kept.hidden, row_scale(kept.hidden, layer.norm1, eps), layer.norm1, layer.qkv)
    saved.needs_input_grad[3] = layer.qkv_bias is not None
    more, norm1, qkv, bias, _ = NormLinear.backward(saved, slope.view(len(slope), -1))
    return grad + more, Layer(norm1, qkv, bias, None, None, o, norm2, gate_up, down)


def _saved(*tensors: Tensor, **more: Any) -> Any:
    """Stands for the context that autograd hands to a backward pass."""
    return SimpleNamespace(saved_tensors=tensors, needs_input_grad=[True] * 5, **more)
