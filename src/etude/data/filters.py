"""What is thrown away, and why. A filter takes items and gives those that stay; the data set's card counts both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from etude.data.items import Item, messages
from etude.tasks.asked import asked
from etude.tasks.check import Unjudged
from etude.text.near_duplicates import finder, runs
from etude.types import Task

Filter = Callable[[Sequence[Item]], list[Item]]


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


def question(item: Item) -> str:
    """What the item asks, as training and evaluation are kept apart by it (`tasks.asked`)."""
    return asked(Task(tuple(messages(item)), Unjudged()))


def different(items: Sequence[Item]) -> list[Item]:
    """The first of those that ask the same and say the same."""
    return list({(question(i), " ".join(i.text.split())): i for i in reversed(items)}.values())[::-1]


def answered(items: Sequence[Item]) -> list[Item]:
    return [i for i in items if i.prompt.strip() and i.text.strip()]


def held_out(held: Iterable[Item | Task]) -> Filter:
    """Those that ask nothing of `held`."""
    known = {asked(h) if isinstance(h, Task) else question(h) for h in held}
    return where(lambda item: question(item) not in known)


def nearly_different(threshold: float = 0.8, of: Callable[[Item], str] = lambda item: item.prompt) -> Filter:
    """The first of those whose Jaccard similarity, as MinHash estimates it, reaches `threshold`; found by locality-sensitive
    hashing, so in linear time."""

    def keep(items: Sequence[Item]) -> list[Item]:
        near, add = finder(threshold)
        kept = []
        for item in items:
            if not near(text := of(item).casefold()):
                add(text)
                kept.append(item)
        return kept

    return keep


def repeats(text: str, n: int = 4) -> float:
    """The share of a text's runs of `n` words that stood in it before."""
    found = runs(text.casefold(), n)
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
