"""The decoding engine: keys and values of prompts (each stored once, whoever shares it) and of replies, and one
step for all rows. Knows nothing of requests, randomness or the event loop; `policy.native` does.

Attention of a row is taken in two parts, over its prompt (together with all rows of that prompt) and over its
own reply, and merged by their log-sum-exp. Seam for native kernels: `Cache.attend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from etude.policy.head import logits
from etude.policy.layout import layout
from etude.policy.llama import attender, flash, trunk
from etude.policy.weights import Weights
from etude.types import Array

BLOCK = 32  # capacities are multiples of this many tokens


@dataclass
class Row:
    """A reply under way. Its place in the engine's lists is its row number."""

    prompt: int  # slot of its prompt
    start: int  # length of the prompt
    length: int = 0  # own tokens whose keys are stored
    last: int = 0  # the token that is fed next


class Engine:
    """`rows[:n]` are live; a finished row's place is taken by the last one."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.rows: list[Row] = []
        self.users: dict[int, int] = {}  # prompt slot -> rows that read it
        self.lengths: dict[int, int] = {}
        shape = weights.shape
        empty = torch.empty(shape.layers, 2, 0, shape.kv_heads, 0, shape.head_dim, dtype=weights.dtype)
        self.prompts, self.own = empty, empty.clone()

    def bytes_per_token(self) -> int:
        shape = self.weights.shape
        return 2 * shape.layers * shape.kv_heads * shape.head_dim * self.weights.dtype.itemsize

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Array]) -> tuple[list[int], Tensor]:
        """Stores prompts (int32[n] each, n >= 1); returns their slots and the f32[P, V] logits of what follows."""
        tokens = torch.from_numpy(np.concatenate(prompts).astype(np.int64))
        number = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor([len(p) for p in prompts]))
        rows = layout(tokens, number)
        slots = self._slots(len(prompts), max(len(p) for p in prompts))
        bounds = np.cumsum([0, *(len(p) for p in prompts)])
        over = attender(self.weights, rows)

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for slot, a, b in zip(slots, bounds[:-1], bounds[1:], strict=True):
                where = rows.row_of[a:b]
                self.prompts[i, 0, slot, :, : b - a] = k[where].transpose(0, 1)
                self.prompts[i, 1, slot, :, : b - a] = v[where].transpose(0, 1)
            return over(i, q, k, v)

        hidden = trunk(self.weights, rows.tokens, rows.positions, attend)
        for slot, prompt in zip(slots, prompts, strict=True):
            self.users[slot], self.lengths[slot] = 0, len(prompt)
        ends = rows.row_of[torch.from_numpy(bounds[1:] - 1)]
        return slots, hidden[ends]

    def join(self, slot: int, token: int) -> None:
        """A new row that reads the prompt in `slot` and is fed `token` next."""
        self.users[slot] += 1
        self.rows.append(Row(slot, self.lengths[slot], 0, token))

    def leave(self, number: int) -> None:
        """Drops a row; the last row takes its number. A prompt that nobody reads any more is dropped too."""
        row, moved = self.rows[number], self.rows.pop()
        if moved is not row:
            n = moved.length
            self.own[:, :, number, :, :n] = self.own[:, :, len(self.rows), :, :n]
            self.rows[number] = moved
        self.users[row.prompt] -= 1
        self.release(row.prompt)

    def release(self, slot: int) -> None:
        if self.users.get(slot) == 0:
            del self.users[slot], self.lengths[slot]

    @torch.no_grad()
    def step(self) -> Tensor:
        """f32[n, D]: hidden states after every row was fed its next token."""
        rows = self.rows
        self._grow_own(len(rows), max(r.length for r in rows) + 1)
        tokens = torch.tensor([r.last for r in rows])
        positions = torch.tensor([r.start + r.length for r in rows])
        cache = Cache(self, positions)
        for row in rows:
            row.length += 1
        return trunk(self.weights, tokens, positions, cache.attend)

    def logits(self, hidden: Tensor) -> Tensor:
        """f32[n, V]."""
        with torch.no_grad():
            return logits(hidden, self.weights.head)

    def _slots(self, number: int, length: int) -> list[int]:
        """Free prompt slots, after making room for them."""
        free = [s for s in range(len(self.users) + number) if s not in self.users][:number]
        self.prompts = _grown(self.prompts, max(free) + 1, length)
        return free

    def _grow_own(self, rows: int, length: int) -> None:
        self.own = _grown(self.own, rows, length)


def _grown(cache: Tensor, rows: int, length: int) -> Tensor:
    """[layers, 2, >= rows, K, >= length, hd]: the cache itself where it is large enough, else a larger copy."""
    have_rows, have = cache.shape[2], cache.shape[4]
    if rows <= have_rows and length <= have:
        return cache
    shape = list(cache.shape)
    shape[2] = max(rows, have_rows)
    shape[4] = have if length <= have else max(-(-length // BLOCK) * BLOCK, min(2 * have, have + 256))
    larger = cache.new_zeros(shape)  # zeros: masked entries are multiplied by 0 and must be finite
    larger[:, :, :have_rows, :, :have] = cache
    return larger


class Cache:
    """One step's view of the keys and values of all rows, and their attention."""

    def __init__(self, engine: Engine, positions: Tensor) -> None:
        rows, shape = engine.rows, engine.weights.shape
        self.engine, self.group, self.kv, self.hd = engine, shape.group, shape.kv_heads, shape.head_dim
        self.n = len(rows)
        self.slots = sorted({r.prompt for r in rows})
        place = {slot: i for i, slot in enumerate(self.slots)}
        self.at = torch.tensor([r.length for r in rows])
        self.number = torch.arange(self.n)
        # rows of one prompt are further queries of the same keys
        seat = np.zeros(self.n, np.int64)
        taken = [0] * len(self.slots)
        for i, row in enumerate(rows):
            seat[i] = taken[place[row.prompt]]
            taken[place[row.prompt]] += 1
        self.width = max(taken)
        self.seat = torch.tensor([place[r.prompt] for r in rows]) * self.width + torch.from_numpy(seat)
        self.asker = torch.zeros(len(self.slots) * self.width, dtype=torch.int64)
        self.asker[self.seat] = self.number
        self.shared = max(engine.lengths[s] for s in self.slots)
        self.reach = int(self.at.max()) + 1
        self.slot_index: slice | Tensor = torch.tensor(self.slots)
        if self.slots == list(range(len(self.slots))):
            self.slot_index = slice(0, len(self.slots))
        self.masks = {w: self._masks(w, positions) for w in set(shape.windows)}

    def _masks(self, window: int, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """0 / -inf over the prompt's keys [U, 1, W * group or 1, P], over the row's own [n, 1, 1, O], and, under
        a window, for queries that see nothing of the prompt any more [U, 1, W * group]."""
        engine, dtype = self.engine, self.engine.weights.dtype
        lengths = torch.tensor([engine.lengths[s] for s in self.slots])
        keys = torch.arange(self.shared)
        seen = (keys[None] < lengths[:, None])[:, None, None, :]
        mine = (torch.arange(self.reach)[None] <= self.at[:, None])[:, None, None, :]
        if window:
            asks = (
                positions[self.asker].view(len(self.slots), self.width).repeat_interleave(self.group, dim=1)
            )
            seen = seen & (asks[:, None, :, None] - keys[None, None, None] < window)
            mine = mine & (self.at[:, None] - torch.arange(self.reach)[None] < window)[:, None, None, :]
        blind = _bias(seen.any(dim=-1), torch.float32) if window else None
        return _bias(seen, dtype), _bias(mine, dtype), blind

    def attend(self, i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stores k and v (n, K, hd) of layer i and returns the attention of q (n, H, hd), as (n, H * hd)."""
        engine, n, kv, group, hd = self.engine, self.n, self.kv, self.group, self.hd
        own = engine.own[i]
        own[0, self.number, :, self.at] = k
        own[1, self.number, :, self.at] = v
        before, mine, blind = self.masks[engine.weights.shape.windows[i]]
        q = q.view(n, kv, group, hd)
        b, b_sum = flash(q, own[0, :n, :, : self.reach], own[1, :n, :, : self.reach], mine)
        prompts = engine.prompts[i]
        keys = prompts[0, self.slot_index, :, : self.shared]
        values = prompts[1, self.slot_index, :, : self.shared]
        asks = q[self.asker].view(len(self.slots), self.width, kv, group, hd).transpose(1, 2)
        a, a_sum = flash(asks.reshape(len(self.slots), kv, self.width * group, hd), keys, values, before)
        if blind is not None:
            a_sum = a_sum + blind
        a = a.view(len(self.slots), kv, self.width, group, hd).transpose(1, 2).flatten(0, 1)[self.seat]
        a_sum = a_sum.view(len(self.slots), kv, self.width, group).transpose(1, 2).flatten(0, 1)[self.seat]
        share = torch.sigmoid(a_sum - b_sum)[..., None]  # of the prompt in the softmax over both
        return torch.lerp(b.float(), a.float(), share).to(q.dtype).view(n, -1)


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)
