"""The forward pass of the Llama family over rows: float32 residual stream, norms, rotations and softmax;
matrix products in the precision of the working weights. Training, scoring, prefill and decoding are this one
function with another `attend`. Norm outputs and MLP products are recomputed in the backward pass.

`norm_linear`, `apply_rope`, `gated_linear` and `models.attention` compute through native kernels where these can be
had (`models.kernels`), and by the PyTorch code beside the call where not.

A row's result must not depend on what else is computed beside it, or sampler and trainer disagree. On the CPU that
holds, bit for bit, where no product is narrower than `LEAST_ROWS` rows and attention runs in whole tiles (tested). With
AMX it does not hold for the library's bf16 products at any number of rows; there they are our own (`kernels.tiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from etude.models import kernels
from etude.models.config import ModelConfig
from etude.models.weights import Layer, Weights

LEAST_ROWS = {torch.float32: 8, torch.bfloat16: 2}

Attend = Callable[[int, Tensor], Tensor]
"""(layer, z [R, H + 2K, hd]: rotated queries, rotated keys, values) -> [R, H * hd], in the working precision."""


def trunk(weights: Weights, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """f32[R, D]: final hidden states, after the last norm, of int64[R] `tokens` at int64[R] `positions`."""
    return finished(weights, blocks(weights, embedded(weights, tokens), positions, attend))


def embedded(weights: Weights, tokens: Tensor) -> Tensor:
    """f32[R, D]"""
    hidden = F.embedding(tokens, weights.embed).float()
    return hidden if weights.hooks is None else weights.hooks("hidden", 0, hidden)


def finished(weights: Weights, hidden: Tensor) -> Tensor:
    """f32[R, D] after the last norm."""
    return norm(hidden, weights.norm, weights.config.eps)


def blocks(
    weights: Weights,
    hidden: Tensor,
    positions: Tensor,
    attend: Attend,
    layers: Sequence[Layer] | None = None,
    keep: Callable[..., None] | None = None,
) -> Tensor:
    """f32[R, D] after all layers. `layers`: the same ones in another layout (`Weights.packed`). `keep` is shown what
    a backward pass would need of every layer (`activation_cache.Rows`, but for the log-sum-exp)."""
    config = weights.config
    angles, hooks = weights.rope(positions), weights.hooks
    for i, layer in enumerate(layers or weights.layers):
        z = norm_linear(hidden, layer.norm1, layer.qkv, layer.qkv_bias, config.eps)
        z = apply_rope(z.view(len(z), -1, config.head_dim), config, layer, angles)
        attended = attend(i, z)
        if hooks is not None:
            attended = hooks("heads", i + 1, attended)
        middle = hidden + linear(attended, layer.o)
        gate_up = norm_linear(middle, layer.norm2, layer.gate_up, None, config.eps)
        if keep is not None:
            keep(hidden, z, attended, middle, gate_up)
        hidden = middle + gated_linear(gate_up, layer.down)
        if hooks is not None:
            hidden = hooks("hidden", i + 1, hidden)
    return hidden


def linear(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [R, I] times matrix [O, I] (plain or packed), transposed. Narrow products take another path through the
    library, with other rounding (MKL float32 below 8 rows, oneDNN bf16 at 1 row): those are padded."""
    if kernels.tiles(x, matrix):
        product: Tensor = (
            Product.apply(x, matrix, bias) if torch.is_grad_enabled() else _product(x, matrix, bias)
        )
        return product
    least = LEAST_ROWS[matrix.dtype]
    if 0 < len(x) < least:
        return linear(F.pad(x, (0, 0, 0, least - len(x))), matrix, bias)[: len(x)]
    if matrix.is_mkldnn:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, matrix, bias, "none", [], "")
        return out
    return F.linear(x, matrix, bias)


def apply_rope(z: Tensor, config: ModelConfig, layer: Layer, angles: tuple[Tensor, Tensor]) -> Tensor:
    """[R, H + 2K, hd]: queries and keys rotated, values as they are."""
    if layer.q_norm is None:
        out: Tensor = ApplyRope.apply(z, config.heads + config.kv_heads, *angles)
        return out
    q, k, v = z.split((config.heads, config.kv_heads, config.kv_heads), dim=1)
    q, k = rotate(q, angles, layer.q_norm, config.eps), rotate(k, angles, layer.k_norm, config.eps)
    return torch.cat((q, k, v), dim=1)


def norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, in float32 (arXiv 1910.07467)."""
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)
    return hidden * scale * weight


def norm_linear(hidden: Tensor, weight: Tensor, matrix: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """[R, M]: norm, rounding to the working precision, matrix product. Keeps `hidden` only."""
    if not torch.is_grad_enabled():
        return linear(_norm(hidden, weight, matrix.dtype, eps)[0], matrix, bias)
    out: Tensor = NormLinear.apply(hidden, weight, matrix, bias, eps)
    return out


def gated_linear(gate_up: Tensor, matrix: Tensor) -> Tensor:
    """[R, D]: (SiLU(gate) * up) times the matrix [D, I]; the product is rounded once. Keeps `gate_up` only."""
    if not torch.is_grad_enabled():
        return linear(_gated(gate_up), matrix)
    out: Tensor = GatedLinear.apply(gate_up, matrix)
    return out


def rotate(x: Tensor, angles: tuple[Tensor, Tensor], weight: Tensor | None, eps: float) -> Tensor:
    """Rotary embedding of [R, heads, hd] by f32[R, hd / 2] cosines and sines, after the optional per-head norm
    (Qwen3). Computed in float32, returned in the precision of `x` (arXiv 2104.09864)."""
    if weight is not None:
        normed: Tensor = Rotate.apply(norm(x.float(), weight, eps), *angles)
        return normed.to(x.dtype)
    out: Tensor = Rotate.apply(x, *angles)
    return out


def _norm(hidden: Tensor, weight: Tensor, dtype: torch.dtype, eps: float) -> tuple[Tensor, Tensor]:
    """Rounded norm [R, D], and the factor of every row, f32[R, 1]."""
    y, scale = hidden.new_empty(hidden.shape, dtype=dtype), hidden.new_empty(len(hidden), 1)
    if kernels.usable(y):
        kernels.call("norm", hidden, weight, y, scale, *hidden.shape, eps)
        return y, scale
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)
    return (hidden * scale).mul_(weight).to(dtype), scale


def row_scale(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """f32[R, 1]: what `norm_linear` keeps beside `hidden`."""
    return _norm(hidden, weight, torch.bfloat16, eps)[1]


def _gated(gate_up: Tensor) -> Tensor:
    """[R, I]: SiLU(gate) * up, rounded once."""
    y = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    if kernels.usable(y):
        kernels.call("gated", gate_up, y, *y.shape)
        return y
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate.float()).mul_(up).to(gate_up.dtype)


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    y = x.new_empty(len(x), len(matrix))
    kernels.call("product", x.contiguous(), matrix, bias, y, *y.shape, x.shape[1])
    return y


class Product(Function):
    """[R, O]: x [R, I] times matrix [O, I], transposed, by the tiles of AMX."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, matrix)
        return _product(x, matrix, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        dx = dy @ matrix if ctx.needs_input_grad[0] else None
        dmatrix = dy.t() @ x if ctx.needs_input_grad[1] else None
        dbias = dy.float().sum(0).to(dy.dtype) if ctx.needs_input_grad[2] else None
        return dx, dmatrix, dbias


class NormLinear(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, matrix: Tensor, bias: Tensor | None, eps: float
    ) -> Tensor:
        y, scale = _norm(hidden, weight, matrix.dtype, eps)
        ctx.save_for_backward(hidden, scale, weight, matrix)
        return linear(y, matrix, bias)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        hidden, scale, weight, matrix = ctx.saved_tensors
        dbias = dz.float().sum(0).to(dz.dtype) if ctx.needs_input_grad[3] else None
        if kernels.usable(matrix):
            dy, dhidden, dweight = dz @ matrix, torch.empty_like(hidden), torch.empty_like(weight)
            y = torch.empty_like(dy)
            kernels.call("norm_backward", hidden, weight, scale, dy, dhidden, dweight, y, *hidden.shape)
            return dhidden, dweight, dz.t() @ y if ctx.needs_input_grad[2] else None, dbias, None
        unit = hidden * scale
        dmatrix = dz.t() @ (unit * weight).to(matrix.dtype) if ctx.needs_input_grad[2] else None
        dy = (dz @ matrix).float()
        dweight = (dy * unit).sum(0)
        dy.mul_(weight)
        mean = (dy * unit).mean(-1, keepdim=True)
        return dy.addcmul_(unit, mean, value=-1).mul_(scale), dweight, dmatrix, dbias, None


class GatedLinear(Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, matrix)
        return linear(_gated(gate_up), matrix)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        gate_up, matrix = ctx.saved_tensors
        if kernels.usable(gate_up, matrix):
            slope, out = dz @ matrix, torch.empty_like(gate_up)
            y = torch.empty_like(slope)
            kernels.call("gated_backward", gate_up, slope, out, y, *y.shape)
            return out, dz.t() @ y if ctx.needs_input_grad[1] else None
        gate, up = gate_up.float().chunk(2, dim=-1)
        soft = torch.sigmoid(gate)
        silu = gate * soft
        dmatrix = dz.t() @ (silu * up).to(matrix.dtype) if ctx.needs_input_grad[1] else None
        dy = (dz @ matrix).float()
        out = torch.empty_like(gate_up)
        dgate, dup = out.chunk(2, dim=-1)
        dup.copy_(dy * silu)
        # d silu(x) / dx = s + x s (1 - s)
        dgate.copy_(dy.mul_(up).mul_(soft.add_(silu * (1 - soft))))
        return out, dmatrix


class Rotate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        return _rotate(dy, cos, -sin), None, None


class ApplyRope(Function):
    """Rotates the first `rotated` heads of [R, heads, hd]."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, rotated: int, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.rotated = rotated
        return _apply_rope(z, rotated, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        return _apply_rope(dz.contiguous(), ctx.rotated, cos, sin, -1.0), None, None, None


def _apply_rope(z: Tensor, rotated: int, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    if kernels.usable(z):
        out = torch.empty_like(z)
        kernels.call("rotate", z, out, cos, sin, len(z), z.shape[1], rotated, z.shape[2], sign)
        return out
    return torch.cat((_rotate(z[:, :rotated], cos, sin * sign), z[:, rotated:]), dim=1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) for the two halves a, b of the last dimension."""
    a, b = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)
