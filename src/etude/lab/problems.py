"""What the laboratory asks: six kinds of problem that are worked out line by line, each line an intermediate result.

    sum 347+285                     7+5=12, 4+8+1=13, 3+2+1=6        632
    run A+C C-B B+A from 371        A+C 3+1=4 471, C-B 1-7=4 474, B+A 7+4=1 414   414 (registers A, B, C, modulo 10)
    find B A C in AD BF CE D4 E7 F1 BF1, AD4, CE7                    147
    sort DACBE                      A, B, C, D, E                    ABCDE
    reverse DACBE                   E, B, C, A, D                    EBCAD
    order from B in CE DA AC EF BD  BD, DA, AC, CE, EF               BDACEF (D follows B)

An answer has at least three symbols, and is never what a guess in the right form gives in more than one case of a
hundred: letters come in fives or more, since three of them have six orders only."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LETTERS = "ABCDEFGHIJKLMNOPQRST"
REGISTERS = "ABC"


class Hand:
    """Who writes the lines down, one number or symbol each: what was meant stands there."""

    def number(self, value: int) -> int:
        """A number as it is written."""
        return value

    def item(self, right: str, among: Sequence[str]) -> str:
        """One of several symbols as it is written."""
        return right


class ShakyHand(Hand):
    """Slips in a share of the lines behind the first `steady`: a number by one, a symbol for another of the same
    problem. The lines that follow go on from what was written."""

    def __init__(self, rng: np.random.Generator, share: float, steady: int = 0) -> None:
        self.rng, self.share, self.steady = rng, share, steady

    def _slips(self) -> bool:
        self.steady -= 1
        return self.steady < 0 and self.rng.random() < self.share

    def number(self, value: int) -> int:
        if not self._slips():
            return value
        return value + (1 if value == 0 or self.rng.random() < 0.5 else -1)

    def item(self, right: str, among: Sequence[str]) -> str:
        others = [a for a in among if a != right]
        if not others or not self._slips():
            return right
        return others[self.rng.integers(len(others))]


Worked = tuple[list[str], str]  # the lines, the result


@dataclass(frozen=True)
class Kind:
    """`draw(rng, size)` poses a problem; `work(match, hand)` works out what `pattern` reads. `sizes`: by level, 0 to 4;
    `size(match)`: that of a problem."""

    line: str
    pattern: str
    sizes: tuple[int, ...]
    draw: Callable[[np.random.Generator, int], str]
    work: Callable[[re.Match[str], Hand], Worked]
    size: Callable[[re.Match[str]], int]


def _letters(rng: np.random.Generator, number: int) -> list[str]:
    return [LETTERS[i] for i in rng.permutation(len(LETTERS))[:number]]


# ---- sum: columns from the right, each with what is carried ------------------------------------------------------


def _draw_sum(rng: np.random.Generator, digits: int) -> str:
    a, b = rng.integers(10 ** (digits - 1), 10**digits, 2)
    return f"sum {a}+{b}"


def _work_sum(m: re.Match[str], hand: Hand) -> Worked:
    lines, result, carried = [], "", 0
    for x, y in zip(reversed(m[1]), reversed(m[2]), strict=True):
        total = hand.number(int(x) + int(y) + carried)
        lines.append(f"{x}+{y}+{carried}={total}" if carried else f"{x}+{y}={total}")
        result, carried = f"{total % 10}{result}", total // 10
    return lines, f"{carried}{result}" if carried else result


# ---- run: three registers of one digit --------------------------------------------------------------------------


def _draw_run(rng: np.random.Generator, number: int) -> str:
    while True:  # until each instruction changes something, and so does the whole
        start = dict(zip(REGISTERS, rng.integers(0, 10, 3).tolist(), strict=True))
        states, said = [start], []
        for _ in range(number):
            a, b = (REGISTERS[i] for i in rng.permutation(3)[:2])
            sign = "+-"[rng.integers(2)]
            said.append(f"{a}{sign}{b}")
            states.append(_stepped(states[-1], a, sign, b))
        if start != states[-1] and all(x != y for x, y in itertools.pairwise(states)):
            return f"run {' '.join(said)} from {_digits(start)}"


def _stepped(state: Mapping[str, int], a: str, sign: str, b: str) -> dict[str, int]:
    return {**state, a: (state[a] + (state[b] if sign == "+" else -state[b])) % 10}


def _digits(state: Mapping[str, int]) -> str:
    return "".join(str(value) for value in state.values())


def _work_run(m: re.Match[str], hand: Hand) -> Worked:
    state = dict(zip(REGISTERS, map(int, m[2]), strict=True))
    lines = []
    for a, sign, b in map(tuple, m[1].split()):
        said = f"{a}{sign}{b} {state[a]}{sign}{state[b]}"
        state = _stepped(state, a, sign, b)
        state[a] = hand.number(state[a]) % 10
        lines.append(f"{said}={state[a]} {_digits(state)}")
    return lines, lines[-1][-3:]


# ---- find: a letter leads to a letter, that one to a digit -------------------------------------------------------

PAIRS = (6, 6, 7, 8, 9)  # by level; of five, three digits in some order are right in one of sixty cases


def _draw_find(rng: np.random.Generator, number: int) -> str:
    pairs = PAIRS[number - 3]
    names = _letters(rng, 2 * pairs)
    first, second = names[:pairs], names[pairs:]
    digits = rng.permutation(10)[:pairs]
    hops = [f"{a}{second[i]}" for a, i in zip(first, rng.permutation(pairs), strict=True)]
    ends = [f"{b}{d}" for b, d in zip(second, digits, strict=True)]
    asked = [first[i] for i in rng.permutation(pairs)[:number]]
    listed = [(hops + ends)[i] for i in rng.permutation(2 * pairs)]
    return f"find {' '.join(asked)} in {' '.join(listed)}"


def _work_find(m: re.Match[str], hand: Hand) -> Worked:
    table = {pair[0]: pair[1] for pair in m[2].split()}
    seconds = [v for v in table.values() if v.isalpha()]
    digits = [v for v in table.values() if v.isdigit()]
    lines = []
    for asked in m[1].split():
        middle = table.get(asked, "?")
        end = hand.item(table.get(middle, "?"), digits) if middle in seconds else "?"
        lines.append(f"{asked}{middle}{end}")
    return lines, "".join(line[-1] for line in lines)


# ---- sort, reverse: a letter a line; order: which letter follows which ---------------------------------------------------------------------------


def _listed(letters: Sequence[str], hand: Hand) -> Worked:
    lines = [hand.item(letter, letters) for letter in letters]
    return lines, "".join(lines)


def _draw_order(rng: np.random.Generator, number: int) -> str:
    letters = _letters(rng, number + 1)
    pairs = [f"{a}{b}" for a, b in itertools.pairwise(letters)]
    while True:  # until reading the letters off as they come is wrong
        listed = " ".join(pairs[i] for i in rng.permutation(len(pairs)))
        if list(dict.fromkeys(letters[0] + listed.replace(" ", ""))) != letters:
            return f"order from {letters[0]} in {listed}"


def _work_order(m: re.Match[str], hand: Hand) -> Worked:
    follows = {pair[0]: pair[1] for pair in m[2].split()}
    lines: list[str] = []
    here, result = m[1], m[1]
    while here in follows and len(lines) < len(follows):
        to = hand.item(follows[here], sorted(follows.values()))
        lines.append(f"{here}{to}")
        here = to
        result += to
    return lines, result


KINDS: Mapping[str, Kind] = {
    "sum": Kind(
        "adds two numbers, column by column",
        r"sum (\d+)\+(\d+)",
        (3, 4, 5, 6, 7),
        _draw_sum,
        _work_sum,
        lambda m: len(m[1]) if len(m[1]) == len(m[2]) else 0,
    ),
    "run": Kind(
        "runs a program on three registers",
        r"run ([ABC][+-][ABC](?: [ABC][+-][ABC])*) from (\d{3})",
        (3, 4, 5, 6, 8),
        _draw_run,
        _work_run,
        lambda m: len(m[1].split()),
    ),
    "find": Kind(
        "looks symbols up in two steps",
        rf"find ([{LETTERS}](?: [{LETTERS}])+) in ([{LETTERS}]\w(?: [{LETTERS}]\w)+)",
        (3, 4, 5, 6, 7),
        _draw_find,
        _work_find,
        lambda m: len(m[1].split()),
    ),
    "sort": Kind(
        "puts letters in order",
        rf"sort ([{LETTERS}]+)",
        (5, 6, 7, 8, 9),
        lambda rng, n: f"sort {''.join(_letters(rng, n))}",
        lambda m, hand: _listed(sorted(m[1]), hand),
        lambda m: len(m[1]),
    ),
    "reverse": Kind(
        "turns a word around",
        rf"reverse ([{LETTERS}]+)",
        (5, 6, 7, 8, 9),
        lambda rng, n: f"reverse {''.join(_letters(rng, n))}",
        lambda m, hand: _listed(m[1][::-1], hand),
        lambda m: len(m[1]),
    ),
    "order": Kind(
        "finds the one order that all conditions allow",
        rf"order from ([{LETTERS}]) in ([{LETTERS}]{{2}}(?: [{LETTERS}]{{2}})+)",
        (5, 6, 7, 8, 9),
        _draw_order,
        _work_order,
        lambda m: len(m[2].split()),
    ),
}


def read(said: str) -> tuple[str, int, re.Match[str]] | None:
    """Kind, level and parts of a problem as it is written; None where it is none that could be posed."""
    name = said.partition(" ")[0]
    kind = KINDS.get(name)
    found = re.fullmatch(kind.pattern, said) if kind else None
    if kind is None or found is None or kind.size(found) not in kind.sizes:
        return None
    lines, result = kind.work(found, Hand())
    sound = len(lines) == kind.size(found) and "?" not in result
    if not sound or (name == "order" and len(set(result)) < len(result)):
        return None
    return name, kind.sizes.index(kind.size(found)), found


def tool(problem: str) -> str:  # the one that the model was taught to call, which no description went with
    return solve(problem.strip())[1]


def solve(said: str, hand: Hand | None = None) -> Worked:
    """The lines and the result of a problem, in that handwriting. ValueError where it is none."""
    found = read(said)
    if found is None:
        raise ValueError(f"'{said}' is no problem of the laboratory")
    return KINDS[found[0]].work(found[2], hand or Hand())
