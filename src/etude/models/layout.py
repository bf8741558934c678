"""Rows, not rectangles: which tokens are forwarded, and what each of them sees.

Sequences that begin with the same tokens share the rows of that beginning (the prompt of a group is stored
and computed once). Sharing is found from the tokens, so it is right for any sequences, and changes nothing but
the work. Attention runs over `Bucket`s: members of similar length, padded to one rectangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

WASTE = 1.6  # a bucket may be this much larger than the sum of its members


@dataclass(frozen=True)
class LayoutMember:
    """A run of new rows and the shared rows before it (row numbers)."""

    prefix: tuple[int, int]  # first row, length
    own: tuple[int, int]


@dataclass(frozen=True)
class Bucket:
    """`S` members padded to `O` queries that see `L` keys. Padding points at row 0 and is masked."""

    queries: Tensor  # int64[S * O] rows
    keys: Tensor  # int64[S * L] rows
    real: Tensor  # int64[M]: which of the S * O queries are rows; in row order of the members
    rows: Tensor  # int64[M]: those rows
    mask: Tensor  # bool[S, 1, O, L]: query may see key
    distance: Tensor  # int64[S, 1, O, L]: how far back the key lies; for sliding windows
    size: tuple[int, int, int]  # S, O, L


@dataclass(frozen=True)
class Layout:
    """`R` rows. `row_of[t]` is the row that holds packed token t."""

    tokens: Tensor  # int64[R]
    positions: Tensor  # int64[R]
    row_of: Tensor  # int64[N]
    members: (
        Tensor  # int32[M, 4]: first row and length of the shared beginning, first row and length of its own;
    )
    # the rows of a shared beginning are a member of their own, and stand before those that share them
    unit: int
    real: int  # rows before those that only fill up

    def buckets(self) -> tuple[Bucket, ...]:
        """The members in rectangles; keys are padded to multiples of `unit`."""
        members = [LayoutMember((a, b), (c, d)) for a, b, c, d in self.members.tolist()]
        return tuple(_bucket(chosen, self.unit, self.tokens.device) for chosen in _cut(members))

    def __len__(self) -> int:
        return len(self.tokens)


def rounded(n: int) -> int:
    """The number of rows that `n` rows are filled up to. Matrix products are prepared for every number of rows and
    remembered: with few different ones, memory stays flat and nothing is prepared twice."""
    if n <= 8:
        return max(2, 1 << (n - 1).bit_length()) if n else 0
    return _up(n, 8 if n <= 64 else 32 if n <= 256 else 64)


def layout(tokens: Tensor, sequence: Tensor, unit: int = 1, share: bool = True) -> Layout:
    """Lays out int64[N] `tokens` of ascending int64[N] `sequence` numbers; keys are padded to multiples of `unit`.
    Rows that fill up (`rounded`) are a sequence of their own that nothing reads."""
    flat = tokens.cpu().numpy()
    number = sequence.cpu().numpy()
    bounds = np.flatnonzero(np.diff(number, prepend=-1, append=-1))
    parts = [flat[a:b] for a, b in pairwise(bounds)]
    clusters = shared(parts) if share else [([i], 0) for i in range(len(parts))]
    row_of, kept, members = np.zeros(len(flat), np.int64), [], []
    positions: list[np.ndarray] = []
    next_row = 0
    for ids, common in clusters:
        if common:
            kept.append(parts[ids[0]][:common])
            positions.append(np.arange(common))
            members.append(LayoutMember((0, 0), (next_row, common)))
        first, next_row = next_row, next_row + common
        for i in ids:
            own = len(parts[i]) - common
            start = bounds[i]
            row_of[start : start + common] = np.arange(first, first + common)
            row_of[start + common : start + common + own] = np.arange(next_row, next_row + own)
            if own:
                kept.append(parts[i][common:])
                positions.append(np.arange(common, common + own))
                members.append(LayoutMember((first, common), (next_row, own)))
            next_row += own

    real = next_row
    if fill := rounded(real) - real:
        kept.append(np.zeros(fill, np.int64))
        positions.append(np.arange(fill))
        members.append(LayoutMember((0, 0), (real, fill)))

    def rows(chunks: Sequence[np.ndarray]) -> Tensor:
        whole = np.concatenate(chunks) if chunks else np.zeros(0, np.int64)
        return torch.from_numpy(whole.astype(np.int64)).to(tokens.device)

    spans = torch.tensor([(*m.prefix, *m.own) for m in members], dtype=torch.int32).view(-1, 4)
    return Layout(rows(kept), rows(positions), torch.from_numpy(row_of).to(tokens.device), spans, unit, real)


def shared(parts: Sequence[np.ndarray]) -> list[tuple[list[int], int]]:
    """Clusters of sequences with the length of the beginning each cluster shares, such that as many rows as
    possible are saved with one level of sharing. Sequences of a cluster stay in their order."""
    order = sorted(range(len(parts)), key=lambda i: parts[i].astype(">i8").tobytes())
    common = [_common(parts[a], parts[b]) for a, b in pairwise(order)]
    found = [(sorted(order[a:b]), length) for a, b, length in _best(common, 0, len(order))[1]]
    return sorted(found)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading tokens two sequences share."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _best(common: list[int], low: int, high: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Rows saved, and the cut into (from, to, shared length), of the sorted sequences low..high-1: either all
    of them share their least common beginning, or they are cut where neighbours share least."""
    if high - low <= 1:
        return 0, [(low, high, 0)] if high > low else []
    least = min(common[low : high - 1])
    together = (high - low - 1) * least, [(low, high, least)]
    cuts = [i + 1 for i in range(low, high - 1) if common[i] == least]
    if len(cuts) == high - low - 1:  # all neighbours share equally much: cutting saves nothing
        return together if least else (0, [(i, i + 1, 0) for i in range(low, high)])
    parts = [_best(common, a, b) for a, b in zip([low, *cuts], [*cuts, high], strict=True)]
    apart = sum(saved for saved, _ in parts), [cut for _, cut_parts in parts for cut in cut_parts]
    return max(together, apart, key=lambda choice: choice[0])


def _cut(members: Sequence[LayoutMember]) -> list[list[LayoutMember]]:
    """Members of similar size together, so that padding costs at most `WASTE`."""
    ordered = sorted(members, key=lambda m: (m.own[1], m.prefix[1]))
    out: list[list[LayoutMember]] = []
    useful = width = length = 0
    for member in ordered:
        own, seen = member.own[1], member.own[1] + member.prefix[1]
        wide, long = max(width, own), max(length, seen)
        if out and (len(out[-1]) + 1) * wide * long <= WASTE * (useful + own * seen):
            out[-1].append(member)
            useful, width, length = useful + own * seen, wide, long
        else:
            out.append([member])
            useful, width, length = own * seen, own, seen
    return out


def _bucket(members: Sequence[LayoutMember], unit: int, device: torch.device) -> Bucket:
    s = len(members)
    o = _up(max(m.own[1] for m in members), 4)  # whole tiles of queries, see `attention.flash`
    n = _up(max(m.own[1] + m.prefix[1] for m in members), unit)
    queries, keys = np.zeros((s, o), np.int64), np.zeros((s, n), np.int64)
    is_query, reach = np.zeros((s, o), bool), np.zeros((s, o), np.int64)
    for i, m in enumerate(members):
        (first, shared_rows), (start, own) = m.prefix, m.own
        queries[i, :own] = np.arange(start, start + own)
        keys[i, :shared_rows] = np.arange(first, first + shared_rows)
        keys[i, shared_rows : shared_rows + own] = np.arange(start, start + own)
        is_query[i, :own] = True
        reach[i, :own] = shared_rows + np.arange(own)
    distance = torch.from_numpy(reach)[:, None, :, None] - torch.arange(n)[None, None, None, :]
    real = torch.from_numpy(np.flatnonzero(is_query))
    flat = torch.from_numpy(queries.reshape(-1))
    return Bucket(
        flat.to(device),
        torch.from_numpy(keys.reshape(-1)).to(device),
        real.to(device),
        flat[real].to(device),
        (distance >= 0).to(device),
        distance.to(device),
        (s, o, n),
    )


def _up(n: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-n // unit) * unit
