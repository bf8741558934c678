"""The decoding engine of the native kernels, with a paged KV cache (arXiv 2309.06180): keys and values lie in pages of 16
positions, each with all layers. The full pages of a prompt are shared by its replies; a page that is not full is copied
when a reply begins in it. Full pages stay in a prefix cache for prompts that begin with the same tokens, the next turn
of a conversation above all, until the weights change. The same interface as `sampling.dense`, which is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from etude.models import kernels
from etude.models.activation_cache import Rows
from etude.models.attention import over_members
from etude.models.forward import blocks, embedded, finished
from etude.models.head import draw
from etude.models.kernels import PAGE
from etude.models.layout import layout, rounded
from etude.models.weights import Layer, Weights
from etude.sampling.prefix_cache import PrefixCache
from etude.types import Array, SamplingParams

CHUNK = 64  # pages allocated at once


@dataclass
class PagedRow:
    """A reply under way. Its place in the engine's list is its row number."""

    length: int  # tokens whose keys are stored
    last: int  # the token that is fed next
    pages: list[int]
    cached_rows: list[int]  # in the activation cache, of every token whose keys are stored
    generation: int  # of the weights that computed them


@dataclass
class Prompt:
    """Its pages are held until `release`."""

    length: int
    pages: list[int]
    cached_rows: list[int]
    generation: int


class PagedEngine:
    """`rows` are live; a finished row's place is taken by the last one. At most `keep` bytes of keys and values that
    no row needs are kept for prompts that begin with their tokens."""

    unit = PAGE

    def __init__(self, weights: Weights, keep: int = 0) -> None:
        self.weights, config = weights, weights.config
        self.rows: list[PagedRow] = []
        # elements of a page that belong to one layer
        self.layer = config.kv_heads * 2 * PAGE * config.head_dim
        self.sizes = config.heads, config.kv_heads, config.head_dim
        self.pool: list[Tensor] = []
        self.address: list[int] = []
        self.references: list[int] = []  # how many rows, prompts and prefixes hold each page
        self.free_pages: list[int] = []
        self.page_table = np.zeros((0, 0), np.int64)  # addresses of the pages of every row
        self.prefixes = PrefixCache(keep // (PAGE * self.bytes_per_token()))
        self.generation = weights.generation  # of the pages in the prefix cache

    def bytes_per_token(self) -> int:
        """Of keys and values, in all layers."""
        return self.weights.config.layers * self.layer // PAGE * self.weights.dtype.itemsize

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Array]) -> tuple[list[Prompt], Tensor]:
        """The prompts (int32[n] each, n >= 1) in pages, and the f32[P, D] hidden states at their last tokens."""
        held = [self._with_cached_pages(p) for p in prompts]
        starts = [len(h.pages) * PAGE for h in held]
        for h in held:
            h.pages += [self._allocate() for _ in range(-(-h.length // PAGE) - len(h.pages))]
        last = torch.empty(len(prompts), self.weights.config.width)
        for group, compute in (
            ([i for i, at in enumerate(starts) if not at], self._whole),
            ([i for i, at in enumerate(starts) if at], self._rest),
        ):
            if group:
                last[group] = compute([prompts[i][starts[i] :] for i in group], [held[i] for i in group])
        for p, h in zip(prompts, held, strict=True):
            self._keep(p, h)
        return held, last

    def uncached(self, prompt: Array) -> int:
        """How many tokens of a prompt would have to be computed now."""
        if self.generation != self.weights.generation:
            return len(prompt)
        return len(prompt) - PAGE * self.prefixes.cached(prompt)

    def _whole(self, prompts: Sequence[Array], held: Sequence[Prompt]) -> Tensor:
        """Computes prompts of which nothing is known; f32[P, D]."""
        lengths = [len(p) for p in prompts]
        tokens = torch.from_numpy(np.concatenate(prompts).astype(np.int64))
        number = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths))
        rows = layout(tokens, number, self.unit)
        page = torch.tensor([self.address[p.pages[i // PAGE]] for p in held for i in range(p.length)])
        place = torch.cat([torch.arange(n, dtype=torch.int32) for n in lengths])

        def attend(i: int, z: Tensor) -> tuple[Tensor, Tensor]:
            self._store(i, z, rows.row_of, page, place)
            return over_members(z, rows.members, *self.sizes, self.weights.config.windows[i])

        hidden, first = self._forward(rows.tokens, rows.positions, attend, self.weights.layers)
        for prompt, where in zip(held, rows.row_of.split(lengths), strict=True):
            prompt.cached_rows = [] if first is None else (where + first).tolist()
        return hidden[rows.row_of[torch.tensor(lengths).cumsum(0) - 1]]

    def _rest(self, tails: Sequence[Array], held: Sequence[Prompt]) -> Tensor:
        """Computes what follows the known pages of prompts, every token as if it were a reply's; f32[P, D]."""
        lengths = [len(t) for t in tails]
        tokens = torch.from_numpy(np.concatenate(tails).astype(np.int64))
        place = torch.cat(
            [
                torch.arange(h.length - n, h.length, dtype=torch.int32)
                for h, n in zip(held, lengths, strict=True)
            ]
        )
        table = np.zeros((len(held), max(len(h.pages) for h in held)), np.int64)
        for row, h in zip(table, held, strict=True):
            row[: len(h.pages)] = [self.address[page] for page in h.pages]
        hidden, first = self._paged(
            tokens, place, torch.from_numpy(table.repeat(lengths, axis=0)), self.weights.layers
        )
        ends = np.cumsum(lengths)
        for h, n, end in zip(held, lengths, ends, strict=True):
            h.cached_rows += [] if first is None else range(first + end - n, first + end)
        return hidden[torch.from_numpy(ends - 1)]

    def _paged(
        self, tokens: Tensor, place: Tensor, table: Tensor, layers: Sequence[Layer]
    ) -> tuple[Tensor, int | None]:
        """One token for each of n rows, int32[n] `place` of it, addresses int64[n, wide] of its pages: stores its keys and
        attends to all up to it. As `_forward`."""
        n = len(tokens)
        full = rounded(n)
        page = table[torch.arange(n), place // PAGE]
        windows = self.weights.config.windows

        def attend(i: int, z: Tensor) -> tuple[Tensor, Tensor]:
            self._store(i, z, None, page, place)
            heads, kv, width = self.sizes
            out, total = z.new_zeros(full, heads * width), z.new_zeros(full, heads, dtype=torch.float32)
            where = n, i * self.layer, heads, kv, width, windows[i]
            kernels.call("attention_paged", z, table, table.shape[1], place, out, total, *where)
            return out, total

        spare = 0, full - n
        pad = torch.nn.functional.pad
        hidden, first = self._forward(pad(tokens, spare), pad(place.long(), spare), attend, layers)
        return hidden[:n], first

    def _forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        attend: Callable[[int, Tensor], tuple[Tensor, Tensor]],
        layers: Sequence[Layer],
    ) -> tuple[Tensor, int | None]:
        """f32[R, D] hidden states, and the number of the first row in the activation cache (None without one). `attend`
        returns log-sum-exps as well."""
        totals: list[Tensor] = []
        kept: list[Rows] = []

        def over(i: int, z: Tensor) -> Tensor:
            out, total = attend(i, z)
            totals.append(total)
            return out

        def keep(hidden: Tensor, z: Tensor, attended: Tensor, middle: Tensor, gate_up: Tensor) -> None:
            kept.append(Rows(hidden, z, attended, totals[-1], middle, gate_up))

        activations = self.weights.activations if self.weights.recording else None
        start = embedded(self.weights, tokens)
        kept_by = None if activations is None else keep
        hidden = blocks(self.weights, start, positions, over, layers, kept_by)
        return finished(self.weights, hidden), None if activations is None else activations.add(kept, hidden)

    def add_row(self, prompt: Prompt, token: int) -> None:
        """A new row after a prompt, which is fed `token` next."""
        full = prompt.length // PAGE
        pages = prompt.pages[:full]
        for page in pages:
            self.references[page] += 1
        if prompt.length % PAGE:
            pages.append(self._allocate())
            self._page(pages[-1]).copy_(self._page(prompt.pages[full]))
        self.rows.append(PagedRow(prompt.length, token, pages, list(prompt.cached_rows), prompt.generation))
        self._update_page_table(len(self.rows) - 1)

    def release(self, prompts: Sequence[Prompt]) -> None:
        """No more rows will join after these prompts."""
        for prompt in prompts:
            self._release_pages(prompt.pages)

    def feed(self, tokens: Sequence[int]) -> None:
        """Says which token every row is fed next."""
        for row, token in zip(self.rows, tokens, strict=True):
            row.last = token

    def cache(self, tokens: Array, held: Prompt | PagedRow) -> None:
        """Notes that int32[n] `tokens` are what was forwarded for a prompt or a row: in the prefix cache and, where one is
        recorded, in the activation cache."""
        self._keep(tokens, held)
        activations = self.weights.activations if self.weights.recording else None
        if activations is not None and len(held.cached_rows) == len(tokens):
            activations.index(tokens, np.array(held.cached_rows))

    def remove_row(self, number: int) -> None:
        """Drops a row; the last row takes its number."""
        gone, moved = self.rows[number], self.rows.pop()
        self._release_pages(gone.pages)
        if number < len(self.rows):
            self.rows[number] = moved
            self._update_page_table(number)

    @torch.no_grad()
    def step(self) -> Tensor:
        """f32[n, D]: hidden states after every row was fed its next token."""
        for i, row in enumerate(self.rows):
            if row.length % PAGE == 0:
                row.pages.append(self._allocate())
                self._update_page_table(i)
            row.length += 1
        place = torch.tensor([row.length - 1 for row in self.rows], dtype=torch.int32)
        tokens = torch.tensor([row.last for row in self.rows])
        table = torch.from_numpy(self.page_table[: len(self.rows)])
        hidden, first = self._paged(tokens, place, table, self.weights.packed()[0])
        if first is not None:
            for i, row in enumerate(self.rows):
                row.cached_rows.append(first + i)
        return hidden

    def draw(self, hidden: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens int64[n] and their log-probabilities f32[n] at f32[n, D] hidden states."""
        return draw(hidden, self.weights.head, params, uniform, self.weights.packed()[1])

    def _with_cached_pages(self, prompt: Array) -> Prompt:
        """A prompt with the pages that are known of it."""
        if self.generation != self.weights.generation:
            self._release_pages(self.prefixes.clear())
            self.generation = self.weights.generation
        pages, cached_rows = self.prefixes.take(prompt)
        for page in pages:
            self.references[page] += 1
        return Prompt(len(prompt), pages, cached_rows, self.generation)

    def _keep(self, tokens: Array, held: Prompt | PagedRow) -> None:
        """Keeps the full pages of a sequence, unless the weights have changed since."""
        if held.generation == self.weights.generation:
            for page in self.prefixes.add(tokens, held.pages, held.cached_rows):
                self.references[page] += 1
            self._release_pages(self.prefixes.evict())

    def _store(self, i: int, z: Tensor, rows: Tensor | None, page: Tensor, place: Tensor) -> None:
        kernels.call("store_pages", z, rows, page, place, len(place), i * self.layer, *self.sizes)

    def _allocate(self) -> int:
        if not self.free_pages:
            size = self.weights.config.layers * self.layer
            chunk = torch.zeros(CHUNK, size, dtype=self.weights.dtype)
            first = len(self.address)
            self.pool.append(chunk)
            self.address += [chunk[i].data_ptr() for i in range(CHUNK)]
            self.references += [0] * CHUNK
            self.free_pages += reversed(range(first, first + CHUNK))
        page = self.free_pages.pop()
        self.references[page] = 1
        return page

    def _release_pages(self, pages: Sequence[int]) -> None:
        for page in pages:
            self.references[page] -= 1
            if not self.references[page]:
                self.free_pages.append(page)

    def _page(self, number: int) -> Tensor:
        return self.pool[number // CHUNK][number % CHUNK]

    def _update_page_table(self, number: int) -> None:
        """Writes the addresses of a row's pages."""
        pages = self.rows[number].pages
        have, wide = self.page_table.shape
        if number >= have or len(pages) > wide:
            grown = np.zeros((max(2 * have, number + 1), max(2 * wide, len(pages))), np.int64)
            grown[:have, :wide] = self.page_table
            self.page_table = grown
        self.page_table[number, : len(pages)] = [self.address[page] for page in pages]
