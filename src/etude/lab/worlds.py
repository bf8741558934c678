"""Two environments of the laboratory. A lock of three to six turns, each of which can be right by itself; and a house in
which a way is to be found, room by room. Every reply works something out and marks what it does at the end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.lab.problems import Hand
from etude.tasks.check import UNARY
from etude.tasks.extract import extract
from etude.tasks.kind import feedback_text
from etude.types import Verdict

TURNS = (3, 4, 5, 6)  # of a lock, by level
DOORS = (4, 5, 6, 7)  # to the lamp, by level
ASIDE = 3  # rooms that lead nowhere
ROOMS = (
    "hall",
    "kitchen",
    "cellar",
    "attic",
    "garden",
    "study",
    "porch",
    "tower",
    "stable",
    "library",
    "bedroom",
)
DIRECTIONS = ("north", "east", "south", "west")
TAKE = "take lamp"


def marked(lines: Sequence[str], result: str) -> str:
    """Lines of working with the result marked below them."""
    return "\n".join([*lines, f"<answer>{result}</answer>"])


# ---- the lock ----------------------------------------------------------------------------------------------------


def turned(start: int, by: int, hand: Hand) -> tuple[list[str], int]:
    """Where a dial of a hundred marks stands afterwards, worked out digit by digit."""
    ones = hand.number(start % 10 + by % 10)
    carried = ones // 10
    terms = f"{start // 10}+{by // 10}" + (f"+{carried}" if carried else "")
    tens = hand.number(start // 10 + by // 10 + carried)
    lines = [f"{start % 10}+{by % 10}={ones}", f"{terms}={tens}"]
    return lines, tens % 10 * 10 + ones % 10


@dataclass(frozen=True)
class Lock:
    """Makes a fresh attempt at a lock: its dial stands at `start` and is turned `by` so much, a turn each; the reply
    says where it stands. Reward: the share of right turns."""

    start: int
    by: tuple[int, ...]
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> LockEnvironment:
        """A new attempt; nothing in it is left to chance."""
        return LockEnvironment(self)

    @property
    def places(self) -> list[int]:
        """Where the dial stands after each turn."""
        return [int(p) for p in (self.start + np.cumsum(self.by)) % 100]


class LockEnvironment:
    """One attempt: `etude.types.Environment`. Nothing tells before its end whether a turn was right."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._right: list[bool] = []

    def observe(self) -> str:
        """Nothing more than the prompt says."""
        return ""

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Checks one turn and asks for the next. Raises RuntimeError after the end."""
        lock, turn = self._lock, len(self._right)
        if turn == len(lock.by):
            raise RuntimeError("the lock was tried: call task.environment() for a new attempt")
        self._right.append(extract(text, "tag") == f"{lock.places[turn]:02d}")
        if turn + 1 < len(lock.by):
            return f"turn {lock.by[turn + 1]}", None
        if all(self._right):
            return "The lock is open.", Verdict(1.0, True)
        hint = f"{UNARY} Turn {1 + self._right.index(False)} is wrong."
        full = f"{UNARY} The right answer is {' '.join(f'{p:02d}' for p in lock.places)}."
        said = feedback_text(lock.feedback, UNARY, hint, full)
        return "The lock is shut.", Verdict(float(np.mean(self._right)), False, said)

    def expert(self) -> str:
        """What a steady hand does in this turn."""
        return self.solve()[len(self._right)]

    def solve(self, hand: Hand | None = None) -> list[str]:
        """The worked solution, a reply each, in that handwriting."""
        replies, place = [], self._lock.start
        for by in self._lock.by:
            lines, place = turned(place, by, hand or Hand())
            replies.append(marked(lines, f"{place:02d}"))
        return replies


def draw_lock(rng: np.random.Generator, level: int) -> tuple[str, Lock]:
    """What is said, and the lock."""
    start, *by = (int(i) for i in rng.integers(10, 100, 1 + TURNS[level]))
    return f"lock of {len(by)} turns. at {start} turn {by[0]}", Lock(start, tuple(by))


# ---- the house ---------------------------------------------------------------------------------------------------

Door = tuple[str, str, str]  # from, in which direction, to


@dataclass(frozen=True)
class House:
    """Makes a fresh walk from the first of the `rooms` on the way to the lamp in the last. Doors open one way; walking
    into a wall costs the turn, a room that leads nowhere the walk. Reward: the share of the way, all with the lamp."""

    doors: tuple[Door, ...]
    way: tuple[str, ...]
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> Walk:
        """A new walk; nothing in it is left to chance."""
        return Walk(self)

    def lines_to(self, room: str, hand: Hand) -> tuple[list[str], str]:
        """From the lamp's room back to `room`, a line each, and the direction in which to leave it."""
        back = {to: (before, direction) for before, direction, to in self.doors}
        here, lines, direction = self.way[-1], [], ""
        while here != room and here in back:
            before, direction = back[here]
            lines.append(f"{before} {direction} {here}")
            here = before
        return lines, hand.item(direction, DIRECTIONS) if direction else ""


class Walk:
    """One walk: `etude.types.Environment`. One turn may be lost. `room`: where one is."""

    def __init__(self, house: House) -> None:
        self._house, self.room, self._turns, self._wrong = house, house.way[0], 0, 0

    def observe(self) -> str:
        """Where one is."""
        return f"you are in {self.room}"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the marked action: a direction, or the lamp."""
        house = self._house
        if self._turns > len(house.way):
            raise RuntimeError("the walk is over: call task.environment() for a new one")
        self._turns += 1
        action = (extract(text, "tag") or "").strip().lower()
        there = next((to for before, way, to in house.doors if (before, way) == (self.room, action)), None)
        right = action == TAKE if self.room == house.way[-1] else there in house.way
        if not right and not self._wrong:
            self._wrong = self._turns
        if action == TAKE and self.room == house.way[-1]:
            self._turns = len(house.way) + 1
            return "you have the lamp", Verdict(1.0, True)
        self.room = there or self.room
        if self.room not in house.way or self._turns > len(house.way):
            return self._lost()
        return f"{'' if there else 'a wall. '}{self.observe()}", None

    def expert(self) -> str:
        """What a steady hand does in this room."""
        return self.reply(self.room, Hand())

    def actions(self) -> list[str]:
        """The directions, and taking the lamp."""
        return [marked([], action) for action in (*DIRECTIONS, TAKE)]

    def solve(self, hand: Hand | None = None) -> list[str]:
        """The worked solution, a reply each; a slip is one of the hand, and the reply after it begins anew."""
        return [self.reply(room, hand or Hand()) for room in self._house.way]

    def reply(self, room: str, hand: Hand) -> str:
        """What to do in a room."""
        lines, direction = self._house.lines_to(room, hand)
        return marked(lines, direction or TAKE)

    def _lost(self) -> tuple[str, Verdict]:
        house = self._house
        self._turns = len(house.way) + 1
        reached = house.way.index(self.room) if self.room in house.way else 0
        hint = f"{UNARY} Turn {self._wrong} is wrong."
        full = f"{UNARY} The right answer is {' '.join(house.way)}."
        said = feedback_text(house.feedback, UNARY, hint, full)
        return "you are lost", Verdict(reached / (len(house.way) + 1), False, said)


def draw_house(rng: np.random.Generator, level: int) -> tuple[str, House]:
    """What is said, and the house."""
    names = [ROOMS[i] for i in rng.permutation(len(ROOMS))]
    way, aside = names[: DOORS[level] + 1], names[DOORS[level] + 1 :][:ASIDE]
    doors: list[Door] = []
    for before, to in itertools.pairwise(way):
        doors.append((before, DIRECTIONS[rng.integers(4)], to))
    for to in aside:
        before = way[rng.integers(len(way) - 1)]
        free = [d for d in DIRECTIONS if (before, d) not in {(b, w) for b, w, _ in doors}]
        doors.append((before, free[rng.integers(len(free))], to))
    doors = [doors[i] for i in rng.permutation(len(doors))]
    told = ", ".join(" ".join(door) for door in doors)
    return f"lamp in {way[-1]}. {told}", House(tuple(doors), tuple(way))
