"""Attention over rows: what every token of a layout, or of a reply under way, makes of the keys before it.

With native kernels, one pass over the members of a layout; the shared beginning of a group is read where it lies.
Without them, flash attention over rectangles (`Bucket`) of members of similar length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from etude.models import kernels
from etude.models.config import ModelConfig
from etude.models.forward import Attend
from etude.models.layout import Bucket, Layout
from etude.models.weights import Weights

LEAST_QUERIES = 4  # queries of a tile of attention


def key_unit(dtype: torch.dtype) -> int:
    """Keys are padded to multiples of this: sums over keys are blocked by their number, by 512 at most."""
    return 32 if dtype == torch.bfloat16 else 512


def native(weights: Weights) -> bool:
    """Whether the kernels can compute this model's attention."""
    return kernels.usable(weights.embed) and weights.config.head_dim % kernels.PAGE == 0


def attender(weights: Weights, rows: Layout) -> Attend:
    """Attention over the rows of a layout, for `trunk`."""
    config = weights.config
    if native(weights):

        def attend_members(i: int, z: Tensor) -> Tensor:
            out: Tensor = MemberAttention.apply(z, rows.members, config, config.windows[i])
            return out

        return attend_members
    buckets = rows.buckets()
    masks: dict[int, list[Tensor]] = {}
    for window in set(config.windows):
        masks[window] = [_mask(bucket, window, config.group, weights.dtype) for bucket in buckets]

    def attend(i: int, z: Tensor) -> Tensor:
        q, k, v = z.split((config.heads, config.kv_heads, config.kv_heads), dim=1)
        out: Tensor = Attention.apply(q, k, v, buckets, masks[config.windows[i]])
        return out

    return attend


def over_members(
    z: Tensor, members: Tensor, heads: int, kv: int, width: int, window: int
) -> tuple[Tensor, Tensor]:
    """[R, H * hd], and the f32[R, H] log-sum-exp of every query's scores."""
    out = z.new_empty(len(z), heads * width)
    lse = z.new_empty(len(z), heads, dtype=torch.float32)
    kernels.call("attention", z, members, len(members), out, lse, heads, kv, width, window)
    return out, lse


class MemberAttention(Function):
    """Keeps z, the result and the log-sum-exp of every query's scores."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, members: Tensor, config: ModelConfig, window: int) -> Tensor:
        ctx.sizes = config.heads, config.kv_heads, config.head_dim, window
        out, lse = over_members(z, members, *ctx.sizes)
        ctx.save_for_backward(z, members, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        z, members, out, lse = ctx.saved_tensors
        dz = torch.empty_like(z)
        kernels.call(
            "attention_backward", z, out, grad.contiguous(), lse, members, len(members), dz, *ctx.sizes
        )
        return dz, None, None, None


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
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
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
