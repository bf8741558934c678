"""What is thrown away, and why. A filter takes items and gives those that stay; the data set's card counts both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from etude.data.items import Item, messages
from etude.errors import UserError
from etude.tasks.asked import asked
from etude.types import Task, Verdict

Filter = Callable[[Sequence[Item]], list[Item]]
PERMUTATIONS = 128
SURE = 0.9  # the index is no sharper than this; candidates are compared once more


@dataclass
class Sieve:
    """Items on their way through filters. `counts`: (what was asked for, how many came, how many stayed)."""

    items: list[Item]
    counts: list[tuple[str, int, int]] = field(default_factory=list)

    def through(self, says: str, keep: Filter) -> Sieve:
        before = len(self.items)
        self.items = keep(self.items)
        self.counts.append((says, before, len(self.items)))
        return self


def where(keep: Callable[[Item], bool]) -> Filter:
    """Those for which `keep` holds."""
    return lambda items: [item for item in items if keep(item)]


def _never(answer: str) -> Verdict:
    return Verdict(0.0, False)


def question(item: Item) -> str:
    """What the item asks, as training and evaluation are kept apart by it (`tasks.asked`)."""
    return asked(Task(tuple(messages(item)), _never))


def different(items: Sequence[Item]) -> list[Item]:
    """The first of those that ask the same and say the same."""
    return list({(question(i), " ".join(i.text.split())): i for i in reversed(items)}.values())[::-1]


def answered(items: Sequence[Item]) -> list[Item]:
    return [i for i in items if i.prompt.strip() and i.text.strip()]


def held_out(held: Iterable[Item | Task]) -> Filter:
    """Those that ask nothing of `held`."""
    known = {asked(h) if isinstance(h, Task) else question(h) for h in held}
    return where(lambda item: question(item) not in known)


def runs(text: str, n: int = 3) -> list[str]:
    """The runs of `n` words or signs."""
    words = re.findall(r"\w+|[^\w\s]", text.casefold())
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def signature(text: str) -> Any:
    """A MinHash over runs of three words (Broder 1997; `datasketch`). UserError where the library is missing."""
    try:
        from datasketch import MinHash
    except ImportError:
        raise UserError("near-duplicates need datasketch; pip install 'etude[data]'") from None
    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([run.encode() for run in runs(text)])
    return made


def nearly_different(threshold: float = 0.8, of: Callable[[Item], str] = lambda item: item.prompt) -> Filter:
    """The first of those whose Jaccard similarity, as MinHash estimates it, reaches `threshold`; found by locality-sensitive
    hashing, so in linear time."""

    def keep(items: Sequence[Item]) -> list[Item]:
        signs = [signature(of(item)) for item in items]
        from datasketch import MinHashLSH

        index = MinHashLSH(threshold=min(threshold, SURE), num_perm=PERMUTATIONS)
        kept = []
        for number, (item, sign) in enumerate(zip(items, signs, strict=True)):
            near = [signs[int(other)] for other in index.query(sign)]
            if any(sign.jaccard(other) >= threshold for other in near):
                continue
            index.insert(str(number), sign)
            kept.append(item)
        return kept

    return keep


def repeats(text: str, n: int = 4) -> float:
    """The share of a text's runs of `n` words that stood in it before."""
    found = runs(text, n)
    return 1 - len(set(found)) / len(found)


def unrepeating(most: float = 0.3) -> Filter:
    return where(lambda item: repeats(item.text) <= most)


def usual_length(of: Sequence[str], read: Callable[[Item], str], reach: float = 2.0) -> Filter:
    """Those whose text is no further from the mean length of `of`, in words, than `reach` standard deviations (one word at
    least, so that demonstrations of one length do not refuse everything)."""
    lengths = np.array([len(text.split()) for text in of])
    middle, spread = float(lengths.mean()), max(1.0, reach * float(lengths.std()))
    return where(lambda item: abs(len(read(item).split()) - middle) <= spread)


def per_question(most: int) -> Filter:
    """At most so many items to a question, the first ones."""

    def keep(items: Sequence[Item]) -> list[Item]:
        seen: Counter[str] = Counter()
        kept = []
        for item in items:
            name = question(item)
            seen[name] += 1
            if seen[name] <= most:
                kept.append(item)
        return kept

    return keep


BOILERPLATE = re.compile(r"^\s*(sure|certainly|of course|here (is|are)|as an ai|i'm sorry|i cannot)\b", re.I)


def without_boilerplate(items: Sequence[Item]) -> list[Item]:
    """Those whose text does not begin with what chat models say before they answer, or instead."""
    return [i for i in items if not BOILERPLATE.match(i.text)]
