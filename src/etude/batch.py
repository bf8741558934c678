"""Signals packed into flat tensors: no padding, index t describes `tokens[t]`.

The pieces of a step are cut along `unit`s (an episode, or a whole group where a loss ties its episodes
together); denominators are counted on the whole step before any cut, so a cut cannot change a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.types import SamplingParams, Signal


@dataclass(frozen=True)
class Batch:
    """`N` tokens in `S` sequences of `B` episodes in groups. All token rows are flat."""

    tokens: Tensor  # int64[N]
    sequence: Tensor  # int64[N], which sequence a token belongs to, ascending from 0
    position: Tensor  # int64[N], from 0 within its sequence
    episode: Tensor  # int64[N], which episode (row of credit) a token belongs to
    group: Tensor  # int64[N], which group
    behaviour: Tensor  # f32[N], log-probability when sampled; 0 elsewhere
    sampled: Tensor  # bool[N]
    advantage: Tensor  # f32[N]
    origin: Tensor  # int64[N], index into the tokens of the packed signals laid end to end as they were given
    weights: Mapping[str, Tensor]  # f32[N] each
    extras: Mapping[str, Tensor]  # f32[N] each
    sampling: SamplingParams = field(default_factory=SamplingParams)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sequences(self) -> int:
        return int(self.sequence[-1]) + 1 if len(self) else 0

    @property
    def needed(self) -> Tensor:
        """bool[N]: tokens whose log-probability some loss term or reader wants; never a first token."""
        wanted = self.sampled.clone()
        for row in self.weights.values():
            wanted |= row != 0
        return wanted & (self.position > 0)

    def weight(self, name: str) -> Tensor:
        """f32[N]; all zero when no signal of this batch carries the row. Zero on first tokens."""
        row = self.weights.get(name)
        return torch.zeros_like(self.behaviour) if row is None else row * (self.position > 0)

    def take(self, keep: Tensor) -> Batch:
        """The tokens where bool[N] `keep`; whole sequences only. Sequence, episode and group numbers
        are kept dense and in order."""
        rows: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                rows[f.name] = value[keep]
            elif isinstance(value, Mapping):
                rows[f.name] = {k: v[keep] for k, v in value.items()}
        for name in ("sequence", "episode", "group"):
            rows[name] = torch.unique(rows[name], return_inverse=True)[1]
        return replace(self, **rows)

    def split(self, tokens: int, unit: str = "episode") -> Iterator[Batch]:
        """Micro-batches of at most `tokens` tokens each (a single larger unit stands alone), never cutting
        a `unit`: "episode" | "group" | "batch". Episodes of one group stay neighbours, to share a prompt."""
        if unit == "batch" or len(self) <= tokens:
            yield self
            return
        unit_of = self.group if unit == "group" else self.episode
        sizes = torch.bincount(unit_of).tolist()
        first, used = 0, 0
        for number, size in enumerate([*sizes, None]):
            if size is None or (used and used + size > tokens):
                yield self.take((unit_of >= first) & (unit_of < number))
                first, used = number, 0
            used += size or 0

    def to(self, device: torch.device | str) -> Batch:
        def moved(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device)
            return {k: v.to(device) for k, v in value.items()} if isinstance(value, Mapping) else value

        rows: dict[str, Any] = {f.name: moved(getattr(self, f.name)) for f in fields(self)}
        return replace(self, **rows)


def pack(signals: Sequence[Signal], sampling: SamplingParams | None = None) -> Batch:
    """Lays signals end to end. Hidden spans (there when sampling, absent when training) are dropped here, and
    a span with `restart` begins a new sequence of the same episode. Signals with the same task become one
    group and are made neighbours; within a group their order is kept."""
    order: dict[str, list[int]] = {}
    for i, signal in enumerate(signals):
        order.setdefault(signal.episode.task.key, []).append(i)
    index_of = [i for group in order.values() for i in group]
    ordered = [signals[i] for i in index_of]
    group_of = [g for g, group in enumerate(order.values()) for _ in group]
    offset = np.concatenate([[0], np.cumsum([len(s.advantage) for s in signals])])

    names = {n for s in ordered for n in s.weights}
    extra_names = {n for s in ordered for n in s.extras}
    columns: dict[str, list[np.ndarray]] = {}
    sequence = 0
    for number, signal in enumerate(ordered):
        spans = signal.episode.spans
        sizes = [len(span) for span in spans]
        seen = np.repeat([not span.hidden for span in spans], sizes).astype(bool)
        jump = np.cumsum([span.restart and i > 0 for i, span in enumerate(spans)])
        part = np.repeat(jump, sizes)[seen] if spans else np.zeros(0, int)
        dense = np.unique(part, return_inverse=True)[1] if len(part) else part
        starts = np.searchsorted(dense, dense, side="left")
        add = {
            "tokens": signal.episode.tokens[seen].astype(np.int64),
            "sequence": dense + sequence,
            "position": np.arange(len(dense)) - starts,
            "episode": np.full(len(dense), number),
            "group": np.full(len(dense), group_of[number]),
            "behaviour": signal.episode.logp[seen],
            "sampled": signal.episode.sampled[seen],
            "advantage": signal.advantage[seen],
            "origin": offset[index_of[number]] + np.flatnonzero(seen),
        }
        blank = np.zeros(len(dense), np.float32)
        add |= {f"w:{n}": signal.weights[n][seen] if n in signal.weights else blank for n in names}
        add |= {f"x:{n}": signal.extras[n][seen] if n in signal.extras else blank for n in extra_names}
        for name, row in add.items():
            columns.setdefault(name, []).append(row)
        sequence += int(dense[-1]) + 1 if len(dense) else 0

    def column(name: str, dtype: torch.dtype) -> Tensor:
        parts = columns.get(name)
        return torch.from_numpy(np.concatenate(parts)).to(dtype) if parts else torch.zeros(0, dtype=dtype)

    whole = {
        n: column(n, torch.int64) for n in ("tokens", "sequence", "position", "episode", "group", "origin")
    }
    return Batch(
        **whole,
        behaviour=column("behaviour", torch.float32),
        sampled=column("sampled", torch.bool),
        advantage=column("advantage", torch.float32),
        weights={n: column(f"w:{n}", torch.float32) for n in sorted(names)},
        extras={n: column(f"x:{n}", torch.float32) for n in sorted(extra_names)},
        sampling=sampling or SamplingParams(),
    )


def unpack(values: Tensor, batch: Batch, signals: Sequence[Signal]) -> list[np.ndarray]:
    """f32[N] (or f32[N, K]) rows of `pack(signals)` back as one f32[T] array per signal, in the order in which
    the signals were given; 0 where a token was not packed."""
    sizes = [len(s.advantage) for s in signals]
    flat = np.zeros((sum(sizes), *values.shape[1:]), np.float32)
    flat[batch.origin.cpu().numpy()] = values.detach().float().cpu().numpy()
    return np.split(flat, np.cumsum(sizes)[:-1])
