"""From hidden states to log-probabilities, a chunk of rows at a time, so that no float32 [N, V] is ever held.

With bfloat16 weights the product writes logits rounded to bfloat16; the largest 16 of a row are then computed again
as float32 dot products. These logits define the policy, for the sampler and for the trainer alike: a token outside
the 16 keeps its rounded logit on both sides (repairing it after the draw would report another probability than the
one it was drawn with).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from etude.models import distribution, kernels
from etude.models.distribution import BLOCKS, normaliser, plain, scores
from etude.models.forward import linear
from etude.models.layout import rounded
from etude.types import SamplingParams

CHUNK = 256  # rows whose float32 logits are held at once
REPAIRED = 16
KEPT = 256 << 20  # bytes of rounded logits that may wait for the backward pass


def logits(hidden: Tensor, matrix: Tensor) -> Tensor:
    """f32[N, V] of f32[N, D] hidden states and [V, D] weights, repaired at the top."""
    return exact(linear(hidden.to(matrix.dtype), matrix), hidden, matrix)


def exact(raw: Tensor, hidden: Tensor, matrix: Tensor) -> Tensor:
    """f32[N, V]: a repaired copy of rounded logits. In float32 there is nothing to repair."""
    if matrix.dtype == torch.float32:
        return raw
    full = raw.float()
    repair(full, hidden, matrix, largest(full))
    return full


def largest(x: Tensor) -> Tensor:
    """int64[N, 16]: the places of the largest entries of f32[N, V] (they lie in the 16 blocks of largest
    maximum, which spares a search through the whole vocabulary)."""
    n, vocabulary = x.shape
    if vocabulary % BLOCKS or vocabulary <= REPAIRED * BLOCKS:
        return x.topk(min(REPAIRED, vocabulary), dim=1).indices
    width = vocabulary // BLOCKS
    blocks = x.view(n, BLOCKS, width)
    where = blocks.amax(dim=2).topk(REPAIRED, dim=1).indices
    inside = blocks.gather(1, where[:, :, None].expand(n, REPAIRED, width)).view(n, REPAIRED * width)
    best = inside.topk(REPAIRED, dim=1).indices
    return where.gather(1, best // width) * width + best % width


def repair(x: Tensor, hidden: Tensor, matrix: Tensor, where: Tensor) -> None:
    """Writes float32 dot products into f32[N, V] `x` at int64[N, K] `where`."""
    rows = F.embedding(where, matrix).float()
    x.scatter_(1, where, rows.mul_(hidden[:, None]).sum(dim=2))


def fast(matrix: Tensor, params: SamplingParams) -> bool:
    """Whether the native kernels compute this distribution. Sampler and trainer must answer alike: of equal logits,
    the kernels and PyTorch may count different ones among the largest 16."""
    return kernels.usable(matrix) and (params.greedy or (params.top_k == 0 and params.top_p == 1))


def _temperature(params: SamplingParams) -> float:
    return 1.0 if plain(params) else float(params.temperature)


def draw(
    hidden: Tensor, matrix: Tensor, params: SamplingParams, uniform: Tensor, packed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token per row of f32[N, D] hidden states, int64[N], and its log-probability, f32[N], from one f64[N]
    `uniform` in [0, 1) a row. `packed`: the matrix as `Weights.packed` has it."""
    n = len(hidden)
    low = F.pad(hidden.to(matrix.dtype), (0, 0, 0, rounded(n) - n))
    raw = linear(low, matrix if packed is None else packed)[:n]
    if not fast(matrix, params):
        return distribution.draw(exact(raw, hidden, matrix), params, uniform)
    token, logp = torch.empty(len(raw), dtype=torch.int64), hidden.new_empty(len(raw))
    size = len(raw), *matrix.shape, _temperature(params), int(params.greedy)
    kernels.call("draw", raw, hidden, matrix, uniform, token, logp, *size)
    return token, logp


def log_probabilities(
    hidden: Tensor, matrix: Tensor, chosen: Tensor, params: SamplingParams, entropy: bool
) -> tuple[Tensor, Tensor]:
    """f32[N] log-probabilities of int64[N] `chosen` under `params`, and f32[N] entropies in nats (zeros unless
    asked for). Differentiable in hidden states and weights; what `params` cuts off is held constant."""
    n = len(hidden)
    fill = rounded(n) - n
    if fill:
        hidden, chosen = F.pad(hidden, (0, 0, 0, fill)), F.pad(chosen, (0, fill))
    logp, spread = Head.apply(hidden, matrix, chosen, params, entropy)
    return logp[:n], spread[:n]


class Head(Function):
    """Keeps the rounded logits of the first `KEPT` bytes' worth of rows for the backward pass, where they are
    overwritten by their own gradient; the logits of further rows are computed again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, matrix: Tensor, chosen: Tensor, params: SamplingParams, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logp, spread = hidden.new_empty(len(hidden)), hidden.new_zeros(len(hidden))
        total = hidden.new_empty(len(hidden))
        rows = (
            min(len(hidden), KEPT // (matrix.element_size() * len(matrix)))
            if any(ctx.needs_input_grad)
            else 0
        )
        kept = matrix.new_empty(rows, len(matrix))
        for part in _chunks(0, len(hidden), CHUNK):
            raw = linear(hidden[part].to(matrix.dtype), matrix)
            if (room := rows - part.start) > 0:
                kept[part] = raw[:room]
            if fast(matrix, params):
                found = logp[part], spread[part] if entropy else None, total[part]
                size = len(raw), *matrix.shape, _temperature(params)
                kernels.call("read_head", raw, hidden[part], matrix, chosen[part], *found, *size)
                continue
            x = scores(exact(raw, hidden[part], matrix), params, chosen[part])
            logp[part], spread[part], total[part] = _read(x, chosen[part], entropy)
        ctx.save_for_backward(hidden, matrix, chosen, spread, total)
        ctx.kept, ctx.params, ctx.entropy = kept, params, entropy
        return logp, spread

    @staticmethod
    def backward(ctx: Any, dlogp: Tensor, dspread: Tensor) -> tuple[Tensor | None, ...]:
        hidden, matrix, chosen, spread, total = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            raise RuntimeError("the head's logits were given up in an earlier backward pass over this graph")
        dhidden, dmatrix = torch.empty_like(hidden), None
        for slab in _chunks(0, len(hidden), max(len(kept), CHUNK)):
            low = hidden[slab].to(matrix.dtype)
            slope = kept if slab.start == 0 and len(kept) else linear(low, matrix)
            for part in _chunks(slab.start, slab.stop, CHUNK):
                inside = slice(part.start - slab.start, part.stop - slab.start)
                if fast(matrix, ctx.params):
                    of_spread = dspread[part].contiguous() if ctx.entropy else None
                    given = dlogp[part].contiguous(), of_spread, spread[part], total[part]
                    size = part.stop - part.start, *matrix.shape, _temperature(ctx.params)
                    kernels.call(
                        "pull_head", slope[inside], hidden[part], matrix, chosen[part], *given, *size
                    )
                    continue
                x = exact(slope[inside], hidden[part], matrix)
                grads = dlogp[part], dspread[part], spread[part], total[part]
                slope[inside] = _pull(x, chosen[part], *grads, ctx.params, ctx.entropy, True)
            dhidden[slab] = slope @ matrix
            if ctx.needs_input_grad[1]:
                add = slope.t() @ low
                dmatrix = add if dmatrix is None else dmatrix.add_(add)
        return dhidden, dmatrix, None, None, None


def _read(x: Tensor, chosen: Tensor, entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """f32[N] log-probabilities of `chosen`, entropies (or zeros) and normalisers of f32[N, V] scores."""
    total, mass, sums = normaliser(x)
    logp = x.gather(1, chosen[:, None])[:, 0] - total
    if not entropy:
        return logp, torch.zeros_like(logp), total
    p = mass.view(len(x), -1)[:, : x.shape[1]] / sums.sum(dim=1, keepdim=True).float()
    return logp, total - (p * x.masked_fill(p == 0, 0.0)).sum(dim=1), total


def _pull(
    logits: Tensor,
    chosen: Tensor,
    dlogp: Tensor,
    dspread: Tensor,
    spread: Tensor,
    total: Tensor,
    params: SamplingParams,
    entropy: bool,
    spare: bool,
) -> Tensor:
    """d loss / d logits, f32[N, V]: for the log-probability onehot - p, for the entropy -p (log p + H). `spare`:
    the logits may be overwritten."""
    x = scores(logits, params, chosen)
    log_p = x - total[:, None] if x is logits and not spare else x.sub_(total[:, None])
    p = log_p.exp() if entropy else log_p.exp_()
    if entropy:
        scale = (
            (log_p.masked_fill_(p == 0, 0.0) + spread[:, None]).mul_(dspread[:, None]).add_(dlogp[:, None])
        )
        out = p.mul_(scale.neg_())
    else:
        out = p.mul_(-dlogp[:, None])
    out.scatter_add_(1, chosen[:, None], dlogp[:, None])
    return out if plain(params) else out.div_(params.temperature)


def _chunks(start: int, stop: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]


def chosen_log_probabilities(
    logits: Tensor, chosen: Tensor, params: SamplingParams, entropy: bool
) -> tuple[Tensor, Tensor]:
    """The same from logits that another model has computed, f32[N, V]; differentiable in them."""
    logp, spread = Chosen.apply(logits, chosen, params, entropy)
    return logp, spread


class Chosen(Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, chosen: Tensor, params: SamplingParams, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        x = scores(logits, params, chosen)
        logp, spread, total = _read(x, chosen, entropy)
        ctx.save_for_backward(logits, chosen, spread, total)
        ctx.params, ctx.entropy = params, entropy
        return logp, spread

    @staticmethod
    def backward(ctx: Any, dlogp: Tensor, dspread: Tensor) -> tuple[Tensor | None, ...]:
        logits, chosen, spread, total = ctx.saved_tensors
        out = _pull(logits, chosen, dlogp, dspread, spread, total, ctx.params, ctx.entropy, False)
        return out, None, None, None
