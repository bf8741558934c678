"""The decoding engine: keys and values of replies under way, and one step for all of them. Knows nothing of
requests, randomness or the event loop; `sampling.native` does.

Every row holds the keys of its prompt and of its reply side by side, and its query goes through the same
attention, in the same order and the same tiles, as in training: sampler and trainer then agree to the last bit
(see `models.attention.flash`). Sharing one copy of a prompt's keys would spare memory traffic, but the merged softmax
rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from etude.models.attention import LEAST_QUERIES, attender, bias, flash, key_unit
from etude.models.forward import trunk
from etude.models.head import draw
from etude.models.layout import layout
from etude.models.weights import Weights
from etude.types import Array, SamplingParams


@dataclass
class DenseRow:
    """A reply under way. Its place in the engine's list is its row number."""

    length: int  # tokens whose keys are stored
    last: int  # the token that is fed next


class Engine:
    """`rows[:n]` are live; a finished row's place is taken by the last one."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.rows: list[DenseRow] = []
        self.unit = key_unit(weights.dtype)
        config = weights.config
        # [layers, keys | values, rows, K, tokens, hd]
        self.kv = torch.zeros(
            config.layers,
            2,
            0,
            config.kv_heads,
            0,
            config.head_dim,
            dtype=weights.dtype,
            device=weights.device,
        )

    def bytes_per_token(self) -> int:
        """Of keys and values, in all layers."""
        config = self.weights.config
        return 2 * config.layers * config.kv_heads * config.head_dim * self.weights.dtype.itemsize

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Array]) -> tuple[list[Tensor], Tensor]:
        """For prompts (int32[n] each, n >= 1) their keys and values, [layers, 2, K, n, hd] each, and the
        f32[P, D] hidden states at their last tokens."""
        device = self.weights.device
        tokens = torch.from_numpy(np.concatenate(prompts).astype(np.int64)).to(device)
        lengths = [len(p) for p in prompts]
        number = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths)).to(device)
        rows = layout(tokens, number, self.unit)
        over = attender(self.weights, rows)
        kept: list[Tensor] = []
        heads, kv = self.weights.config.heads, self.weights.config.kv_heads

        def attend(i: int, z: Tensor) -> Tensor:
            kept.append(z[:, heads:].unflatten(1, (2, kv)))
            return over(i, z)

        hidden = trunk(self.weights, rows.tokens, rows.positions, attend)
        every = torch.stack(kept).transpose(1, 2)  # [layers, 2, R, K, hd]
        held = [every[:, :, where].transpose(2, 3) for where in rows.row_of.split(lengths)]
        ends = torch.tensor(lengths, device=device).cumsum(0) - 1
        return held, hidden[rows.row_of[ends]]

    def uncached(self, prompt: Array) -> int:
        """How many tokens of a prompt would have to be computed now."""
        return len(prompt)

    def add_row(self, prompt: Tensor, token: int) -> None:
        """A new row after a prompt's keys and values [layers, 2, K, n, hd], which is fed `token` next."""
        n = prompt.shape[3]
        self._grow(len(self.rows) + 1, n + 1)
        self.kv[:, :, len(self.rows), :, :n] = prompt
        self.rows.append(DenseRow(n, token))

    def feed(self, tokens: Sequence[int]) -> None:
        """Says which token every row is fed next."""
        for row, token in zip(self.rows, tokens, strict=True):
            row.last = token

    def cache(self, tokens: Array, held: Tensor | DenseRow) -> None:
        """This engine keeps nothing for the gradient."""

    def remove_row(self, number: int) -> None:
        """Drops a row; the last row takes its number."""
        moved = self.rows.pop()
        if number < len(self.rows):
            n = moved.length
            self.kv[:, :, number, :, :n] = self.kv[:, :, len(self.rows), :, :n]
            self.rows[number] = moved

    @torch.no_grad()
    def step(self) -> Tensor:
        """f32[n, D]: hidden states after every row was fed its next token."""
        self._grow(len(self.rows), max(r.length for r in self.rows) + 1)
        step = Step(self)
        tokens = torch.tensor([r.last for r in self.rows], device=self.weights.device)
        for row in self.rows:
            row.length += 1
        return trunk(self.weights, tokens, step.at, step.attend)

    def draw(self, hidden: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens int64[n] and their log-probabilities f32[n] at f32[n, D] hidden states."""
        return draw(hidden, self.weights.head, params, uniform)

    def release(self, prompts: Sequence[Tensor]) -> None:
        """No more rows will join after these prompts: nothing is held of them here."""

    def _grow(self, rows: int, length: int) -> None:
        """Makes room: capacities grow by half at least, so that growing costs little in all."""
        have_rows, have = self.kv.shape[2], self.kv.shape[4]
        if rows <= have_rows and length <= have:
            return
        shape = list(self.kv.shape)
        if rows > have_rows:
            shape[2] = max(rows, have_rows + have_rows // 2)
        if length > have:
            shape[4] = -(-max(length, have + have // 2) // self.unit) * self.unit
        larger = self.kv.new_zeros(shape)  # zeros: what is masked is multiplied by 0 and must be finite
        n = len(self.rows)
        larger[:, :, :n, :, :have] = self.kv[:, :, :n]
        self.kv = larger


class Step:
    """One step's masks and places."""

    def __init__(self, engine: Engine) -> None:
        self.kv, config = engine.kv, engine.weights.config
        self.windows = config.windows
        device, dtype = engine.weights.device, engine.weights.dtype
        self.at = torch.tensor([r.length for r in engine.rows], device=device)
        self.rows = torch.arange(len(engine.rows), device=device)
        longest = max(r.length for r in engine.rows) + 1
        self.reach = -(-longest // engine.unit) * engine.unit
        distance = self.at[:, None, None, None] - torch.arange(self.reach, device=device)
        # the heads of one key head are further queries; a tile of fewer than LEAST_QUERIES rounds differently
        self.queries = -(-config.group // LEAST_QUERIES) * LEAST_QUERIES
        self.masks = {}
        for window in set(config.windows):
            seen = (distance >= 0) & (distance < window) if window else distance >= 0
            self.masks[window] = bias(seen, dtype).expand(-1, 1, self.queries, -1)

    def attend(self, i: int, z: Tensor) -> Tensor:
        """Stores keys and values of z [n, H + 2K, hd] in layer i; the attention of its queries, [n, H * hd]."""
        kv = self.kv.shape[3]
        q, k, v = z.split((z.shape[1] - 2 * kv, kv, kv), dim=1)
        n, _, hd = k.shape
        keys, values = self.kv[i, 0], self.kv[i, 1]
        keys[self.rows, :, self.at] = k
        values[self.rows, :, self.at] = v
        group = q.shape[1] // kv
        ask = q.reshape(n, kv, group, hd)
        if group < self.queries:
            ask = torch.nn.functional.pad(ask, (0, 0, 0, self.queries - group))
        mask = self.masks[self.windows[i]]
        out, _ = flash(ask, keys[:n, :, : self.reach], values[:n, :, : self.reach], mask)
        return out[:, :, :group].reshape(n, -1)
