"""Ten small functions and the line in which each goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bug:
    """`names`: (module, function) to choose from; `lines` hold {f}, the function's name, and {k}, a number; `right` is the line
    that `wrong` takes the place of, both without indentation; `arguments` draws those of one call."""

    names: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    right: str
    wrong: str
    arguments: Callable[[random.Random], tuple[Any, ...]]


def _numbers(draw: random.Random) -> tuple[Any, ...]:
    return ([draw.randint(0, 12) for _ in range(draw.randint(1, 6))],)


def _clamped(draw: random.Random) -> tuple[Any, ...]:
    low = draw.randint(0, 9)
    return draw.randint(-9, 29), low, low + draw.randint(1, 9)


def _ending(draw: random.Random) -> tuple[Any, ...]:
    xs = [draw.randint(0, 9) for _ in range(draw.randint(3, 7))]
    return xs, draw.randint(1, len(xs) - 1)


def _word(draw: random.Random) -> tuple[Any, ...]:
    half = "".join(draw.choice("abc") for _ in range(2))
    return (half + half[::-1] if draw.random() < 0.5 else half + "d",)


def _words(draw: random.Random) -> tuple[Any, ...]:
    return (["x" * draw.randint(1, 6) + draw.choice("abc") for _ in range(draw.randint(2, 5))],)


def _whole(draw: random.Random) -> tuple[Any, ...]:
    return (draw.randint(1, 20),)


def _letters(draw: random.Random) -> tuple[Any, ...]:
    return ([draw.choice("abc") for _ in range(draw.randint(2, 7))],)


def _pair(draw: random.Random) -> tuple[Any, ...]:
    k = draw.randint(2, 6)
    return k * draw.randint(1, 9), k * draw.randint(1, 9)


BUGS = (
    Bug(
        (("limits", "clamp"), ("ranges", "keep_within")),
        (
            "# x, or the bound that it lies beyond",
            "def {f}(x, low, high):",
            "    return max(low, min(high, x))",
        ),
        "return max(low, min(high, x))",
        "return min(low, min(high, x))",
        _clamped,
    ),
    Bug(
        (("counts", "count_above"), ("tally", "how_many_above")),
        (
            "# counts the numbers greater than {k}",
            "def {f}(xs):",
            "    n = 0",
            "    for x in xs:",
            "        if x > {k}:",
            "            n += 1",
            "    return n",
        ),
        "if x > {k}:",
        "if x >= {k}:",
        _numbers,
    ),
    Bug(
        (("slices", "last"), ("ends", "tail")),
        ("# the last n of a list", "def {f}(xs, n):", "    start = len(xs) - n", "    return xs[start:]"),
        "start = len(xs) - n",
        "start = len(xs) - n - 1",
        _ending,
    ),
    Bug(
        (("stats", "mean"), ("figures", "average")),
        ("# the mean, rounded down", "def {f}(xs):", "    total = sum(xs)", "    return total // len(xs)"),
        "return total // len(xs)",
        "return total // (len(xs) + 1)",
        _numbers,
    ),
    Bug(
        (("texts", "is_palindrome"), ("words", "reads_both_ways")),
        (
            "# is a text the same backwards?",
            "def {f}(text):",
            "    back = text[::-1]",
            "    return text == back",
        ),
        "back = text[::-1]",
        "back = text[:-1]",
        _word,
    ),
    Bug(
        (("sums", "sum_to"), ("series", "add_up_to")),
        (
            "# 1 + 2 + ... + n, times {k}",
            "def {f}(n):",
            "    total = 0",
            "    for i in range(1, n + 1):",
            "        total += i * {k}",
            "    return total",
        ),
        "for i in range(1, n + 1):",
        "for i in range(1, n):",
        _whole,
    ),
    Bug(
        (("longest", "longest_word"), ("lengths", "longest_of")),
        (
            "# the longest word, the first of several",
            "def {f}(words):",
            "    best = words[0]",
            "    for word in words:",
            "        if len(word) > len(best):",
            "            best = word",
            "    return best",
        ),
        "if len(word) > len(best):",
        "if len(word) < len(best):",
        _words,
    ),
    Bug(
        (("peaks", "running_max"), ("records", "highest_so_far")),
        (
            "# the highest number so far, for each place",
            "def {f}(xs):",
            "    best, found = 0, []",
            "    for x in xs:",
            "        best = max(best, x)",
            "        found.append(best)",
            "    return found",
        ),
        "best = max(best, x)",
        "best = min(best, x)",
        _numbers,
    ),
    Bug(
        (("letters", "count_letters"), ("frequency", "how_often")),
        (
            "# how often each letter occurs",
            "def {f}(xs):",
            "    counts = {{}}",
            "    for x in xs:",
            "        counts[x] = counts.get(x, 0) + 1",
            "    return counts",
        ),
        "counts[x] = counts.get(x, 0) + 1",
        "counts[x] = counts.get(x, 1) + 1",
        _letters,
    ),
    Bug(
        (("divisors", "gcd"), ("factors", "common_divisor")),
        (
            "# the greatest common divisor",
            "def {f}(a, b):",
            "    while b:",
            "        a, b = b, a % b",
            "    return a",
        ),
        "a, b = b, a % b",
        "a, b = b, a // b",
        _pair,
    ),
)
