"""Texts that are nearly the same: MinHash over runs of three words (Broder 1997), by `datasketch`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from etude.errors import UserError

PERMUTATIONS = 128
SURE = 0.9  # the index is no sharper than this; candidates are compared once more


def needed(instead: str = "") -> None:
    """UserError where the library is missing; `instead`: what else would do."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        raise UserError(f"near-duplicates need datasketch; pip install 'etude[written]'{instead}") from None


def runs(text: str, n: int = 3) -> list[str]:
    """The runs of `n` words or signs."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def signature(text: str) -> Any:
    """Equal texts have equal ones; `a.jaccard(b)` estimates how much two share. UserError where the library is missing."""
    needed()
    from datasketch import MinHash

    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([run.encode() for run in runs(text)])
    return made


def finder(threshold: float) -> tuple[Callable[[str], bool], Callable[[str], None]]:
    """`(near, add)`: whether a text is nearly one of those that were added; by locality-sensitive hashing, so that many are
    looked at in linear time."""
    needed()
    from datasketch import MinHashLSH

    index, signs = MinHashLSH(threshold=min(threshold, SURE), num_perm=PERMUTATIONS), list[Any]()

    def near(text: str) -> bool:
        sign = signature(text)
        return any(signs[int(other)].jaccard(sign) >= threshold for other in index.query(sign))

    def add(text: str) -> None:
        signs.append(signature(text))
        index.insert(str(len(signs) - 1), signs[-1])

    return near, add
