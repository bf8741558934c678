"""Sequences laid end to end in one row for a transformers module: no padding is forwarded.

The module is given int64[1, N] tokens and positions that begin again at 0 with every sequence, and an attention function
of ours that keeps sequences apart. It runs PyTorch's variable-length flash attention where the device has it, and else
scaled-dot-product attention over rectangles of sequences of similar length: only there is anything padded. Whether a family
may be packed is not looked up in a list but tried, on the loaded weights (`obstacle`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from etude.models.projection import Projection

NAME = "etude"  # of the attention function, as transformers knows it
WASTE = 1.6  # a rectangle's area may be this much larger than the areas of its members
LAYERS = {"full_attention", "sliding_attention"}  # what a layer may see; what else there is cannot be packed
NEW = (
    "position_bias",
    "s_aux",
    "sinks",
)  # arguments that change attention in ways that are not computed here


class Unpackable(Exception):
    """This architecture cannot be packed; the message says why."""


@dataclass(frozen=True)
class Rectangle:
    """`S` sequences filled up to `L` tokens each. Filling points at token 0 and is read by nobody."""

    rows: Tensor  # int64[S * L] tokens
    real: Tensor  # int64[M]: which of the S * L are tokens
    size: tuple[int, int]  # S, L


@dataclass(frozen=True)
class Packing:
    """Where the sequences of a row of `N` tokens lie."""

    bounds: Tensor  # int32[S + 1]
    longest: int
    back: Tensor  # int64[N]: the place of each token among the real ones of all rectangles
    rectangles: tuple[Rectangle, ...]
    flash: bool = False  # by `torch.nn.attention.varlen`


def packing(lengths: Sequence[int], device: torch.device, flash: bool = False) -> Packing:
    """The packing of sequences of these lengths, in this order."""
    ends = torch.tensor([0, *lengths]).cumsum(0)
    rectangles, order = [], []
    for chosen in _similar(lengths):
        longest = lengths[chosen[-1]]
        column = torch.arange(longest)
        size = torch.tensor([lengths[i] for i in chosen])[:, None]
        rows = torch.where(column < size, ends[torch.tensor(chosen)][:, None] + column, 0)
        real = (column < size).view(-1).nonzero()[:, 0]
        rectangles.append(Rectangle(rows.view(-1).to(device), real.to(device), (len(chosen), longest)))
        order.append(rows.view(-1)[real])
    back = torch.cat(order).argsort() if order else torch.zeros(0, dtype=torch.int64)
    bounds = ends.to(torch.int32).to(device)
    return Packing(bounds, max(lengths, default=0), back.to(device), tuple(rectangles), flash)


def _similar(lengths: Sequence[int]) -> list[list[int]]:
    """Sequences of similar length together, shortest first."""
    out: list[list[int]] = []
    used = 0
    for number in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: lengths[i]):
        area = lengths[number] ** 2
        if out and (len(out[-1]) + 1) * area <= WASTE * (used + area):
            out[-1].append(number)
            used += area
        else:
            out.append([number])
            used = area
    return out


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [1, H, N, hd] queries to [1, N, H, hd], where a `packing` says which sequences
    lie in the row. Without one, what transformers would do."""
    if any(other.get(name) is not None for name in NEW):
        raise Unpackable("its attention has sinks or a bias by position")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if packing is None:
        return _one(module, query, key, value, attention_mask, scale, softcap), None
    if packing.flash and softcap is None:
        return _flash(query, key, value, packing, scale, sliding_window)[None], None
    parts = []
    for rectangle in packing.rectangles:
        s, n = rectangle.size
        q, k, v = (
            x[0].index_select(1, rectangle.rows).unflatten(1, (s, n)).transpose(0, 1)
            for x in (query, key, value)
        )
        mask = None
        if sliding_window is not None and sliding_window < n:
            at = torch.arange(n, device=q.device)
            distance = at[:, None] - at
            mask = ((distance >= 0) & (distance < sliding_window))[None, None]
        out = _one(module, q, k, v, mask, scale, softcap)
        parts.append(out.flatten(0, 1).index_select(0, rectangle.real))
    return torch.cat(parts).index_select(0, packing.back)[None], None


def _one(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """[S, H, n, hd] queries to [S, n, H, hd]; causal where bool[.., n, m] `mask` does not say otherwise."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if softcap is None:
        found: Tensor = sdpa_attention_forward(
            module, query, key, value, mask, scaling=scale, is_causal=True
        )[0]
        return found
    group = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, group), repeat_kv(value, group)
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / softcap)).float() * softcap
    if mask is None:
        n, m = scores.shape[2:]
        mask = torch.ones(n, m, dtype=torch.bool, device=scores.device).tril(m - n)
    weights = scores.masked_fill(~mask[..., : key.shape[2]], -torch.inf).softmax(-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, window: int | None
) -> Tensor:
    """[N, H, hd] by PyTorch's variable-length flash attention, which knows nothing but half precision on CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    bounds, n = packing.bounds, packing.longest
    sight = (-1 if window is None else window - 1, 0)
    out: Tensor = varlen_attn(  # type: ignore[assignment]
        q, k, v, bounds, bounds, n, n, scale=scale, window_size=sight, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out


def can_flash(module: Any) -> bool:
    """Whether variable-length flash attention may be tried: of a PyTorch that has it in the form that is used here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    first = next(module.parameters())
    known = {"window_size", "enable_gqa", "scale"} <= set(inspect.signature(varlen_attn).parameters)
    return known and first.device.type == "cuda" and first.dtype in (torch.bfloat16, torch.float16)


def register() -> None:
    """Makes `attend` known to transformers. Masks for what is not packed are those of its own attention."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def body(module: Any) -> Any:
    """A module without its output projection, adapters or not."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    return base.base_model


def trunk(module: Any, tokens: Tensor, positions: Tensor, where: Packing) -> Tensor:
    """[N, D] last hidden states of a packed row of int64[N] `tokens`."""
    out = body(module)(tokens[None], position_ids=positions[None], use_cache=False, packing=where)
    states: Tensor = out.last_hidden_state[0]
    return states


@torch.no_grad()
def obstacle(module: Any) -> tuple[str, bool]:
    """Why a module (without adapters) cannot be packed, "" where it can; and whether flash attention serves it. Packed
    sequences are compared with sequences alone, and with packed ones whose neighbours differ. A module that can be packed
    computes attention by `attend` from here on, one that cannot is left as it was."""
    config = module.config.get_text_config()
    was = module.config._attn_implementation
    try:
        if not getattr(module, "_supports_attention_backend", False):
            raise Unpackable("its attention cannot be replaced")
        kinds = set(getattr(config, "layer_types", None) or ())
        if odd := kinds - LAYERS:
            raise Unpackable(f"it has layers of the kind '{min(odd)}'")
        windows = getattr(config, "sliding_window", None) and (not kinds or "sliding_attention" in kinds)
        if windows and not getattr(module, "_supports_flash_attn", False):
            raise Unpackable("its attention is not told of its sliding window")
        alone = _alone(module, (7, 5))
        register()
        module.set_attn_implementation(NAME)
        for flash in (True, False) if can_flash(module) else (False,):
            reason = _compared(module, alone, flash)
            if not reason:
                return "", flash
        raise Unpackable(reason)
    except Exception as error:
        module.set_attn_implementation(was)
        cause = str(error).strip().split("\n")[0]
        return cause if isinstance(error, Unpackable) else f"{type(error).__name__}: {cause}", False


def _probe(module: Any, length: int, shift: int) -> Tensor:
    size = module.get_input_embeddings().num_embeddings
    device = next(module.parameters()).device
    return (torch.arange(length, device=device) * 3 + shift) % size


def _alone(module: Any, lengths: Sequence[int]) -> list[Tensor]:
    """f32[n, V] logits of probes of these lengths, each by itself."""
    probes = [_probe(module, n, i) for i, n in enumerate(lengths)]
    return [module(p[None], use_cache=False).logits[0].float() for p in probes]


def _compared(module: Any, alone: Sequence[Tensor], flash: bool) -> str:
    """What is wrong with packing, "" for nothing. `alone`: logits of probes, each by itself."""
    lengths = [len(x) for x in alone]
    device = alone[0].device
    where = packing(lengths, device, flash)
    positions = torch.cat([torch.arange(n, device=device) for n in lengths])
    last = Projection(module)

    def packed(shifts: Sequence[int]) -> list[Tensor]:
        row = torch.cat([_probe(module, n, i) for n, i in zip(lengths, shifts, strict=True)])
        try:
            states = trunk(module, row, positions, where)
        except Exception as error:
            if flash:  # attention without it is tried next
                return [torch.full_like(x, torch.nan) for x in alone]
            raise error
        return list(last.logits(states).split(lengths))

    got = packed(range(len(lengths)))
    scale = max(float(x.abs().max()) for x in alone)
    bound = (1e-4 if next(module.parameters()).dtype == torch.float32 else 0.03) * scale
    gap = max(float((a - b).abs().max()) for a, b in zip(got, alone, strict=True))
    if not gap <= bound:
        return "packed sequences do not get the logits that they get alone"
    moved = float((packed([90, 1])[1] - got[1]).abs().max())
    return "" if moved <= bound else "packed sequences see their neighbours"


class Recomputed:
    """A layer's forward pass, of which the backward pass keeps the input alone."""

    recomputed = True

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def __call__(self, *given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*given, **named)
        return checkpoint(
            partial(self.forward, **named), *given, use_reentrant=False, preserve_rng_state=False
        )


def recompute(module: Any) -> int:
    """Activation checkpointing, layer by layer; returns how many layers there are. transformers' own does nothing outside
    of training mode, in which there would be dropout."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = Recomputed(layer.forward)
    return len(layers)
