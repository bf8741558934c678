"""The forward pass of the Llama family over rows: float32 residual stream, norms, rotations and softmax;
matrix products in the precision of the working weights. Training, scoring, prefill and decoding are this one
function with another `attend`. Norm outputs and MLP products are recomputed in the backward pass.

Seams for native kernels: `norm_linear`, `rotate`, `attention`, `gated_linear`.

A row's result must not depend on what else is computed beside it, or sampler and trainer disagree. On the CPU that
holds, bit for bit, where no product is narrower than `LEAST_ROWS` rows and attention runs in whole tiles (tested).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from etude.policy.layout import Bucket, Layout
from etude.policy.weights import Layer, Weights

LEAST_ROWS = {torch.float32: 8, torch.bfloat16: 2}
LEAST_QUERIES = 4  # queries of a tile of attention

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [R, H, hd], k [R, K, hd], v [R, K, hd]) -> [R, H * hd], in the working precision."""


def trunk(weights: Weights, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """f32[R, D]: final hidden states, after the last norm, of int64[R] `tokens` at int64[R] `positions`."""
    shape = weights.shape
    angles = weights.rope(positions)
    hidden = F.embedding(tokens, weights.embed).float()
    for i, layer in enumerate(weights.layers):
        q, k, v = project_heads(weights, layer, hidden, angles)
        hidden = hidden + linear(attend(i, q, k, v), layer.o)
        gate_up = norm_linear(hidden, layer.norm2, layer.gate_up, None, shape.eps)
        hidden = hidden + gated_linear(gate_up, layer.down)
    return norm(hidden, weights.norm, shape.eps)


def linear(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [R, I] times matrix [O, I], transposed. Narrow products take another path through the library, with other
    rounding (MKL float32 below 8 rows, oneDNN bf16 at 1 row): those are padded."""
    least = LEAST_ROWS[matrix.dtype]
    if len(x) >= least or not len(x):
        return F.linear(x, matrix, bias)
    return F.linear(F.pad(x, (0, 0, 0, least - len(x))), matrix, bias)[: len(x)]


def key_unit(dtype: torch.dtype) -> int:
    """Keys are padded to multiples of this: sums over keys are blocked by their number, by 512 at most."""
    return 32 if dtype == torch.bfloat16 else 512


def project_heads(
    weights: Weights, layer: Layer, hidden: Tensor, angles: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries [R, H, hd], rotated keys [R, K, hd] and values [R, K, hd]."""
    shape = weights.shape
    z = norm_linear(hidden, layer.norm1, layer.qkv, layer.qkv_bias, shape.eps)
    z = z.view(-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)
    q, k, v = z.split((shape.heads, shape.kv_heads, shape.kv_heads), dim=1)
    q = rotate(q, angles, layer.q_norm, shape.eps)
    return q, rotate(k, angles, layer.k_norm, shape.eps), v


def norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, in float32 (arXiv 1910.07467)."""
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)
    return hidden * scale * weight


def norm_linear(hidden: Tensor, weight: Tensor, matrix: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """[R, M]: norm, rounding to the working precision, matrix product. Keeps `hidden` only."""
    out: Tensor = NormLinear.apply(hidden, weight, matrix, bias, eps)
    return out


def gated_linear(gate_up: Tensor, matrix: Tensor) -> Tensor:
    """[R, D]: (SiLU(gate) * up) times the matrix [D, I]; the product is rounded once. Keeps `gate_up` only."""
    out: Tensor = GatedLinear.apply(gate_up, matrix)
    return out


def rotate(x: Tensor, angles: tuple[Tensor, Tensor], weight: Tensor | None, eps: float) -> Tensor:
    """Rotary embedding of [R, heads, hd] by f32[R, hd / 2] cosines and sines, after the optional per-head norm
    (Qwen3). Computed in float32, returned in the precision of `x` (arXiv 2104.09864)."""
    if weight is not None:
        return Rotate.apply(norm(x.float(), weight, eps), *angles).to(x.dtype)
    out: Tensor = Rotate.apply(x, *angles)
    return out


class NormLinear(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, matrix: Tensor, bias: Tensor | None, eps: float
    ) -> Tensor:
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(hidden, scale, weight, matrix)
        return linear((hidden * scale).mul_(weight).to(matrix.dtype), matrix, bias)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        hidden, scale, weight, matrix = ctx.saved_tensors
        unit = hidden * scale
        dmatrix = dz.t() @ (unit * weight).to(matrix.dtype) if ctx.needs_input_grad[2] else None
        dbias = dz.float().sum(0).to(dz.dtype) if ctx.needs_input_grad[3] else None
        dy = (dz @ matrix).float()
        dweight = (dy * unit).sum(0) if ctx.needs_input_grad[1] else None
        dy.mul_(weight)
        mean = (dy * unit).mean(-1, keepdim=True)
        return dy.addcmul_(unit, mean, value=-1).mul_(scale), dweight, dmatrix, dbias, None


class GatedLinear(Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, matrix)
        gate, up = gate_up.chunk(2, dim=-1)
        return linear(F.silu(gate.float()).mul_(up).to(matrix.dtype), matrix)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        gate_up, matrix = ctx.saved_tensors
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
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(dy, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) for the two halves a, b of the last dimension."""
    a, b = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def attender(weights: Weights, rows: Layout) -> Attend:
    """Attention over the rows of a layout, for `trunk`."""
    masks: dict[int, list[Tensor]] = {}
    shape = weights.shape
    for window in set(shape.windows):
        masks[window] = [_mask(bucket, window, shape.group, weights.dtype) for bucket in rows.buckets]

    def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, rows.buckets, masks[shape.windows[i]])

    return attend


def attention(q: Tensor, k: Tensor, v: Tensor, buckets: tuple[Bucket, ...], masks: list[Tensor]) -> Tensor:
    """[R, H * hd]: every row of q sees its own bucket's keys. Keeps q, k, v; the rest is recomputed."""
    out: Tensor = Attention.apply(q, k, v, buckets, masks)
    return out


def _mask(bucket: Bucket, window: int, group: int, dtype: torch.dtype) -> Tensor:
    """[S, 1, O * group, L], 0 or -inf: the heads of one key/value head are further queries of the same key."""
    seen = bucket.mask
    if window:
        seen = seen & (bucket.distance < window)
    return bias(seen, dtype).repeat_interleave(group, dim=2)


def bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, -inf elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


def _as_queries(x: Tensor, bucket: Bucket, kv: int) -> Tensor:
    """Rows [R, H, hd] as the queries [S, K, O * H / K, hd] of a bucket."""
    s, o, _ = bucket.size
    heads, hd = x.shape[1:]
    rows = x.index_select(0, bucket.queries).view(s, o, kv, heads // kv, hd)
    return rows.transpose(1, 2).reshape(s, kv, -1, hd)


def _as_rows(x: Tensor, bucket: Bucket) -> Tensor:
    """The inverse, [M, H * hd], for the real queries of a bucket."""
    s, o, _ = bucket.size
    kv, hd = x.shape[1], x.shape[3]
    rows = x.view(s, kv, o, -1, hd).transpose(1, 2).reshape(s * o, -1)
    return rows.index_select(0, bucket.real)


def _as_keys(x: Tensor, bucket: Bucket) -> Tensor:
    """Rows [R, K, hd] as the keys [S, K, L, hd] of a bucket."""
    s, _, n = bucket.size
    return x.index_select(0, bucket.keys).view(s, n, x.shape[1], x.shape[2]).transpose(1, 2)


class Attention(Function):
    """Flash attention per bucket. Sums over the samples that share a prompt are taken in float32."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, buckets: tuple[Bucket, ...], masks: list[Tensor]
    ) -> Tensor:
        out = q.new_empty(len(q), q.shape[1] * q.shape[2])
        saved = []
        for bucket, mask in zip(buckets, masks, strict=True):
            ask, key, value = _as_queries(q, bucket, k.shape[1]), _as_keys(k, bucket), _as_keys(v, bucket)
            got, total = flash(ask, key, value, mask)
            out[bucket.rows] = _as_rows(got, bucket)
            saved += [got, total]
        ctx.save_for_backward(q, k, v, *saved)
        ctx.buckets, ctx.masks = buckets, masks
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        dq, grad = torch.empty_like(q), grad.view_as(q)
        dk, dv = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (k, v))
        for i, (bucket, mask) in enumerate(zip(ctx.buckets, ctx.masks, strict=True)):
            # in float32: as exact as can be, and with short sequences faster than bf16 (3.0 against 14 ms)
            ask = _as_queries(q, bucket, k.shape[1]).float()
            key, value = _as_keys(k, bucket).float(), _as_keys(v, bucket).float()
            s, o, _ = bucket.size
            padding = torch.ones(s * o, dtype=torch.bool, device=q.device).index_fill_(0, bucket.real, False)
            asked = _as_queries(grad, bucket, k.shape[1]).float().view(s, k.shape[1], o, -1)
            asked = asked.masked_fill(padding.view(s, 1, o, 1), 0.0).view_as(ask)
            got, lse = saved[2 * i].float(), saved[2 * i + 1]
            dask, dkey, dvalue = flash_backward(asked, ask, key, value, got, lse, mask.float())
            dq[bucket.rows] = _as_rows(dask.contiguous(), bucket).view(-1, *q.shape[1:]).to(q.dtype)
            for total, part in ((dk, dkey), (dv, dvalue)):
                total.index_add_(0, bucket.keys, part.transpose(1, 2).reshape(-1, *k.shape[1:]))
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None


def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """[S, K, Q, hd] and the f32[S, K, Q] log-sum-exp of its scores (0 for a query that sees nothing). On the CPU
    a query's bits depend on its own keys only where Q is a multiple of 4 (no narrow tile is left over) and the
    number of keys one of `key_unit`."""
    if q.device.type == "cpu":
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
        return out.contiguous(), total
    at = (q @ k.mT).float() * q.shape[-1] ** -0.5 + mask
    return at.softmax(-1).to(q.dtype) @ v, at.logsumexp(-1)


def flash_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, total: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    if q.device.type == "cpu":
        back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        dq, dk, dv = back(grad, q, k, v, out, total, 0.0, False, attn_mask=mask)
        return dq, dk, dv
    scale = q.shape[-1] ** -0.5
    p = ((q @ k.mT).float() * scale + mask - total[..., None]).exp()
    slope = p * ((grad @ v.mT).float() - (grad.float() * out.float()).sum(-1, keepdim=True)) * scale
    return slope @ k, slope.mT @ q, p.mT @ grad
