"""How much of one text stands in another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def bleu(mine: Sequence[str], good: Sequence[str], longest: int = 4) -> float:
    """BLEU (Papineni et al. 2002) without smoothing, over the characters of texts or over lists of words: the geometric mean of the precisions of
    1 to `longest` in a row, times exp(1 - |good| / |mine|) where mine is not longer. 0 where one of them is 0."""
    logs = 0.0
    for n in range(1, longest + 1):
        grams, wanted = (Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in (mine, good))
        shared = sum((grams & wanted).values())
        if not shared:
            return 0.0
        logs += math.log(shared / sum(grams.values())) / longest
    brevity = 1.0 if len(mine) > len(good) else math.exp(1 - len(good) / len(mine))
    return brevity * math.exp(logs)


def overlap(one: str, other: str) -> float:
    """Words of both / words of the one that has fewer; 0 where one has none."""
    a, b = set(one.split()), set(other.split())
    return len(a & b) / min(len(a), len(b)) if a and b else 0.0
