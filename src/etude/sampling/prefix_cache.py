"""Which pages hold the beginnings of sequences that were computed: found by their tokens, dropped by age."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

from etude.models.kernels import PAGE
from etude.types import Array


class Prefixes:
    """At most `most` pages. Knows names and numbers only: who counts the users of pages adds one for each that `add`
    returns, and takes one away for each that `excess` or `clear` returns."""

    def __init__(self, most: int) -> None:
        self.most = most
        # name of a beginning -> its last page, and where its tokens are on the tape; the oldest first
        self._pages: dict[bytes, tuple[int, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def known(self, prompt: Array) -> int:
        """How many pages are there for a prompt. Its last token is in none of them: somebody must compute it."""
        return len(self._found(prompt))

    def use(self, prompt: Array) -> tuple[list[int], list[int]]:
        """These pages, and the places of their tokens on the tape."""
        found = self._found(prompt)
        for name in reversed(found):  # a beginning stays longer than what goes on from it
            self._pages[name] = self._pages.pop(name)
        pages = [self._pages[name] for name in found]
        return [page for page, _ in pages], [i for _, places in pages for i in places]

    def add(self, tokens: Array, pages: Sequence[int], places: Sequence[int]) -> list[int]:
        """Takes in the full pages of a sequence; those that are new."""
        new = []
        for k, name in reversed(list(enumerate(_names(tokens)))) if self.most else ():
            if name not in self._pages:
                self._pages[name] = pages[k], list(places[k * PAGE : (k + 1) * PAGE])
                new.append(pages[k])
        return new

    def excess(self) -> list[int]:
        """Drops the oldest pages that are too many."""
        return self._drop(len(self) - self.most)

    def clear(self) -> list[int]:
        """Drops all pages."""
        return self._drop(len(self))

    def _found(self, prompt: Array) -> list[bytes]:
        found = []
        for name in islice(_names(prompt), (len(prompt) - 1) // PAGE):
            if name not in self._pages:
                break
            found.append(name)
        return found

    def _drop(self, number: int) -> list[int]:
        return [self._pages.pop(name)[0] for name in list(islice(self._pages, max(number, 0)))]


def _names(tokens: Array) -> Iterator[bytes]:
    """A name for every beginning of int32[n] `tokens` that fills its pages."""
    name = b""
    for at in range(0, len(tokens) - PAGE + 1, PAGE):
        name = hashlib.blake2b(name + tokens[at : at + PAGE].tobytes(), digest_size=16).digest()
        yield name
