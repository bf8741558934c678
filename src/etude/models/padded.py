"""Sequences in padded rectangles, for architectures that cannot be packed: right wherever `AutoModelForCausalLM` is."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from etude.batch import Batch
from etude.models.hooks import Hooks

PIECE = 2048  # padded tokens per forward call


def forwarded(
    module: Any, batch: Batch, tokens: Tensor, source: Tensor, keep: bool, hooks: Hooks | None = None
) -> tuple[Tensor, Tensor]:
    """f32[M, D] hidden states (where `keep`) and f32[M, V] logits at int64[M] places `source` of a batch whose inputs are
    int64[N] `tokens`. Sequences are padded on the right, where causal attention does not see it."""
    states, found = [], []
    for numbers in _pieces(batch):
        first, last = numbers[0], numbers[-1]
        inside = (batch.sequence >= first) & (batch.sequence <= last)
        row, column = batch.sequence[inside] - first, batch.position[inside]
        size = last - first + 1, int(column.max()) + 1
        rectangle = torch.zeros(size, dtype=torch.int64, device=tokens.device)
        seen = torch.zeros_like(rectangle)
        rectangle[row, column], seen[row, column] = tokens[inside], 1
        number = torch.full_like(rectangle, -1)  # in the batch, of every token
        number[row, column] = inside.nonzero()[:, 0]
        with hooks.computing(number) if hooks else nullcontext():
            out = module(rectangle, attention_mask=seen, use_cache=False, output_hidden_states=keep)
        asked = source[inside[source]]
        at = batch.sequence[asked] - first, batch.position[asked]
        found.append(out.logits[at].float())
        if keep:
            states.append(out.hidden_states[-1][at].float())
    vocabulary = module.config.get_text_config().vocab_size
    state = torch.cat(states) if states else nothing(module, tokens.device)
    return state, torch.cat(found) if found else torch.zeros(0, vocabulary, device=tokens.device)


def nothing(module: Any, device: torch.device) -> Tensor:
    """f32[0, D]: the hidden states of no token."""
    return torch.zeros(0, module.config.get_text_config().hidden_size, device=device)


def _pieces(batch: Batch) -> list[list[int]]:
    """Neighbouring sequences whose padded rectangle holds at most `PIECE` tokens."""
    lengths = torch.bincount(batch.sequence).tolist() if len(batch) else []
    out: list[list[int]] = []
    longest = 0
    for number, length in enumerate(lengths):
        longest = max(longest, length)
        if out and (len(out[-1]) + 1) * longest <= PIECE:
            out[-1].append(number)
        else:
            out.append([number])
            longest = length
    return out
