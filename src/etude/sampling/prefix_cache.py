"""The prefix cache: which pages hold the keys and values of known beginnings of sequences, found by a hash of their
tokens, evicted by age."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

from etude.models.kernels import PAGE
from etude.types import Array


class PrefixCache:
    """At most `max_pages` pages. Holds hashes and page numbers only: the owner of the pages counts one reference more for
    each that `add` returns, and one less for each that `evict` or `clear` returns."""

    def __init__(self, max_pages: int) -> None:
        self.max_pages = max_pages
        # hash of a beginning -> its last page, and the rows of that page's tokens in the activation cache; oldest first
        self._pages: dict[bytes, tuple[int, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def cached(self, prompt: Array) -> int:
        """How many pages hold the beginning of a prompt. Its last token is in none of them: its logits are wanted."""
        return len(self._found(prompt))

    def take(self, prompt: Array) -> tuple[list[int], list[int]]:
        """These pages, and the rows of their tokens in the activation cache."""
        found = self._found(prompt)
        for name in reversed(found):  # a beginning stays longer than what goes on from it
            self._pages[name] = self._pages.pop(name)
        pages = [self._pages[name] for name in found]
        return [page for page, _ in pages], [i for _, cached_rows in pages for i in cached_rows]

    def add(self, tokens: Array, pages: Sequence[int], cached_rows: Sequence[int]) -> list[int]:
        """Takes in the full pages of a sequence; those that are new."""
        new = []
        for k, name in reversed(list(enumerate(_hashes(tokens)))) if self.max_pages else ():
            if name not in self._pages:
                self._pages[name] = pages[k], list(cached_rows[k * PAGE : (k + 1) * PAGE])
                new.append(pages[k])
        return new

    def evict(self) -> list[int]:
        """Drops the oldest pages that are too many."""
        return self._drop(len(self) - self.max_pages)

    def clear(self) -> list[int]:
        """Drops all pages."""
        return self._drop(len(self))

    def _found(self, prompt: Array) -> list[bytes]:
        found = []
        for name in islice(_hashes(prompt), (len(prompt) - 1) // PAGE):
            if name not in self._pages:
                break
            found.append(name)
        return found

    def _drop(self, number: int) -> list[int]:
        return [self._pages.pop(name)[0] for name in list(islice(self._pages, max(number, 0)))]


def _hashes(tokens: Array) -> Iterator[bytes]:
    """A hash for every beginning of int32[n] `tokens` that fills its pages."""
    name = b""
    for at in range(0, len(tokens) - PAGE + 1, PAGE):
        name = hashlib.blake2b(name + tokens[at : at + PAGE].tobytes(), digest_size=16).digest()
        yield name
