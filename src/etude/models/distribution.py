"""The one place where logits become probabilities. The sampler draws from, and the trainer differentiates,
the distribution defined here: logits / temperature, cut to the top k, then to the top p of what is left.

Greedy is its own flag: the sampler takes the largest logit, and log-probabilities are those of the model
itself (temperature 1, nothing cut), so that a greedy attempt can still be trained on or compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from etude.errors import UserError
from etude.models.device import widest
from etude.types import SamplingParams

BLOCKS = 256  # of the vocabulary, for two-level sums and draws


def check(params: SamplingParams) -> None:
    """Raises `UserError` for settings that define no distribution."""
    if not params.temperature > 0:
        raise UserError(
            f"temperature must be above 0 (for the likeliest token set greedy); got {params.temperature}"
        )
    if params.top_k < 0 or not 0 < params.top_p <= 1 or params.max_tokens < 1:
        raise UserError(
            "top_k must be at least 0 (0: off), top_p in (0, 1] and max_tokens at least 1; got "
            f"top_k={params.top_k}, top_p={params.top_p}, max_tokens={params.max_tokens}"
        )


def plain(params: SamplingParams) -> bool:
    """Whether the distribution is the model's own softmax."""
    return params.greedy or (params.temperature == 1 and params.top_k == 0 and params.top_p == 1)


def scores(logits: Tensor, params: SamplingParams, chosen: Tensor | None = None) -> Tensor:
    """f32[N, V]: unnormalised log-probabilities of f32[N, V] `logits` under `params`; -inf where cut.
    The `chosen` tokens (int64[N]) are always kept, so that their log-probability is finite. May return
    `logits` itself, never changes it."""
    if plain(params):
        return logits
    x = logits / params.temperature
    if params.top_k == 0 and params.top_p == 1:
        return x
    drop = torch.zeros_like(x, dtype=torch.bool)
    if 0 < params.top_k < x.shape[1]:
        drop |= x < x.topk(params.top_k, dim=1).values[:, -1:]
    if params.top_p < 1:
        ordered, index = x.masked_fill(drop, -torch.inf).sort(dim=1, descending=True, stable=True)
        p = ordered.softmax(dim=1)
        # a token stays while what comes before it is less than top_p: the first one always does
        beyond = p.cumsum(dim=1) - p >= params.top_p
        drop |= torch.zeros_like(drop).scatter_(1, index, beyond)
    if chosen is not None:
        drop.scatter_(1, chosen[:, None], False)
    return x.masked_fill_(drop, -torch.inf)


def normaliser(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f32[N] log sum exp of f32[N, V] scores, with f32[N, B, V / B] exp(x - max) in blocks (the vocabulary is
    padded with zeros) and f64[N, B] the sums of the blocks."""
    top = x.amax(dim=1, keepdim=True)
    mass = (x - top).exp_()
    width = -(-x.shape[1] // BLOCKS)
    if width * BLOCKS != x.shape[1]:
        mass = torch.nn.functional.pad(mass, (0, width * BLOCKS - x.shape[1]))
    blocks = mass.view(len(x), BLOCKS, width)
    sums = blocks.sum(dim=2).to(widest(x.device))
    return top[:, 0] + sums.sum(dim=1).log().float(), blocks, sums


def log_softmax(logits: Tensor, params: SamplingParams, chosen: Tensor | None = None) -> Tensor:
    """f32[N, V] log-probabilities under `params`; -inf for what was cut."""
    x = scores(logits, params, chosen)
    return x - normaliser(x)[0][:, None]


def draw(logits: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row, int64[N], and its log-probability, f32[N], by inverse CDF from one f64[N] `uniform`
    in [0, 1) a row: first the block of the vocabulary, then the token in it. Greedy ignores `uniform`."""
    if params.greedy:
        tokens = logits.argmax(dim=1)
        x = logits
        total = normaliser(x)[0]
    else:
        x = scores(logits, params)
        total, mass, sums = normaliser(x)
        tokens = pick(mass, sums, uniform)
    return tokens, x.gather(1, tokens[:, None])[:, 0] - total


def pick(mass: Tensor, sums: Tensor, uniform: Tensor) -> Tensor:
    """int64[N]: the tokens at `uniform` of the cumulated f32[N, B, W] `mass` whose block sums are f64[N, B]."""
    rows = torch.arange(len(mass), device=mass.device)
    ends = sums.cumsum(dim=1)
    target = (uniform.to(mass.device, sums.dtype) * ends[:, -1])[:, None]
    block = (ends <= target).sum(dim=1, keepdim=True)
    block = torch.minimum(block, _last(sums))  # rounding may put the target at the very end
    before = ends.gather(1, block) - sums.gather(1, block)
    inside = mass[rows, block[:, 0]].to(sums.dtype)
    within = (inside.cumsum(dim=1) + before <= target).sum(dim=1, keepdim=True)
    within = torch.minimum(within, _last(inside))
    return (block * mass.shape[2] + within)[:, 0]


def _last(mass: Tensor) -> Tensor:
    """int64[N, 1]: the last entry of each row that holds any mass."""
    index = torch.arange(mass.shape[1], device=mass.device)
    return torch.where(mass > 0, index, 0).amax(dim=1, keepdim=True)
