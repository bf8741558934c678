"""What decoding has computed, kept for the gradient. The rows of a reply were forwarded when it was sampled, with the
weights that are about to be trained; sampler and trainer agree to the last bit, so the trainer need not forward them
again. `Policy.recording` fills a cache, `Policy.publish` drops it; rows that are not in it are computed as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from etude.types import Array

LIMIT = psutil.virtual_memory().total // 4  # bytes; a cache that grows beyond is emptied


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
        self.rows_of: dict[bytes, Array] = {}

    def add(self, layers: list[Rows], last: Tensor) -> int:
        """Keeps a forward pass; returns the number of its first row."""
        first, self.rows = self.rows, self.rows + len(last)
        self.bytes += len(layers) * sum(x.nbytes for x in layers[0]) + last.nbytes
        if self.bytes > LIMIT:
            self.parts, self.last, self.rows_of = [], [], {}
        else:
            self.parts.append(layers)
            self.last.append(last)
        return first

    def index(self, tokens: Array, rows: Array) -> None:
        """The rows of a sequence, int32[n] tokens in int64[n] rows."""
        if self.bytes <= LIMIT:
            self.rows_of[tokens.astype(np.int32).tobytes()] = rows

    def find(self, tokens: Tensor, sequence: Tensor) -> Tensor | None:
        """int64[N]: the rows of packed tokens; None where a sequence is not cached."""
        number = sequence.numpy()
        bounds = np.flatnonzero(np.diff(number, prepend=-1, append=-1))
        parts = np.split(tokens.numpy().astype(np.int32), bounds[1:-1])
        found = [self.rows_of.get(part.tobytes()) for part in parts]
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
