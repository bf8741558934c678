"""Sokoban as a text environment: push every box onto a goal, one move a turn."""

from __future__ import annotations

import random
import re
from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from etude.tasks.kind import FEEDBACK, LEVEL, Kind, Made, feedback_text, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.types import Verdict

Cell = tuple[int, int]  # row and column
MOVES: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_WORD = re.compile(r"\b(left|down|right|up)\b", re.IGNORECASE)
_MOST = 20_000  # positions searched before a room counts as unsolved

PROMPT = """You push boxes in a room. # is wall, _ is floor, P is you, B is a box, G is a goal, * is a box on a goal, + is you on a goal.
Push every box onto a goal. You can push one box at a time and never pull.
Answer with one word each turn: up, down, left or right."""


@dataclass(frozen=True)
class Sokoban:
    """Makes a fresh game in one room. `floor`: the cells that are no wall."""

    size: int
    floor: frozenset[Cell]
    goals: frozenset[Cell]
    boxes: frozenset[Cell]
    start: Cell
    turns: int
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> SokobanEnvironment:
        """A new episode; nothing in it is left to chance."""
        return SokobanEnvironment(self)

    def step(self, at: Cell, boxes: frozenset[Cell], move: str) -> tuple[Cell, frozenset[Cell]]:
        """Where the player and the boxes are after a move; unchanged where it is blocked."""
        dr, dc = MOVES[move]
        to = (at[0] + dr, at[1] + dc)
        beyond = (to[0] + dr, to[1] + dc)
        if to not in self.floor or (to in boxes and (beyond not in self.floor or beyond in boxes)):
            return at, boxes
        return to, (boxes - {to}) | {beyond} if to in boxes else boxes

    def draw(self, at: Cell, boxes: frozenset[Cell]) -> str:
        """The room as text, walls around it included."""

        def sign(cell: Cell) -> str:
            if cell not in self.floor:
                return "#"
            names = ("+", "*", "G") if cell in self.goals else ("P", "B", "_")
            return names[0] if cell == at else names[1] if cell in boxes else names[2]

        span = range(-1, self.size + 1)
        return "\n".join(" ".join(sign((r, c)) for c in span) for r in span)

    def solve(self) -> list[str] | None:
        """The shortest winning moves; None where there are none, or none among the positions searched."""
        return _solve(replace(self, turns=0, feedback="none"))


@lru_cache(maxsize=4096)
def _solve(room: Sokoban) -> list[str] | None:
    first = (room.start, room.boxes)
    before: dict[Any, tuple[Any, str] | None] = {first: None}
    todo = deque([first])
    while todo and len(before) < _MOST:
        state = todo.popleft()
        if state[1] == room.goals:
            moves: list[str] = []
            while (step := before[state]) is not None:
                state, move = step
                moves.append(move)
            return moves[::-1]
        for move in MOVES:
            after = room.step(*state, move)
            if after not in before:
                before[after] = (state, move)
                todo.append(after)
    return None


class SokobanEnvironment:
    """One game: `etude.types.Environment`. Reward 1 when every box stands on a goal, 0 when the turns are used up."""

    def __init__(self, room: Sokoban) -> None:
        self._room = room
        self._at, self._boxes = room.start, room.boxes
        self._trace: list[str] = []
        self._verdict: Verdict | None = None

    def observe(self) -> str:
        """The room as it is."""
        return self._room.draw(self._at, self._boxes)

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the last of up, down, left and right in the reply; a reply without one costs the turn.
        Raises RuntimeError after the end."""
        if self._verdict is not None:
            raise RuntimeError("the game is over: call task.environment() for a new one")
        words = _WORD.findall(text)
        if not words:
            self._trace.append("no move was understood")
            said = "No move was found in your reply. Answer up, down, left or right.\n"
        else:
            move, before = words[-1].lower(), (self._at, self._boxes)
            self._at, self._boxes = self._room.step(*before, move)
            blocked = (self._at, self._boxes) == before
            pushed = self._boxes != before[1]
            self._trace.append(f"{move}{' (blocked)' if blocked else ' (pushed)' if pushed else ''}")
            said = "Something is in the way.\n" if blocked else ""
        if self._boxes == self._room.goals:
            self._verdict = Verdict(1.0, True)
            return "Every box is on a goal.", self._verdict
        if len(self._trace) >= self._room.turns:
            return "You have no turns left.", self._lost()
        return said + self.observe(), None

    def solve(self) -> list[str]:
        """Replies that win. Raises ValueError where none were found."""
        moves = self._room.solve()
        if moves is None:
            raise ValueError("this room cannot be solved")
        return moves

    def _lost(self) -> Verdict:
        missing = len(self._room.goals - self._boxes)
        trace = (
            f"{missing} of {len(self._room.goals)} goals without a box. Your moves: {', '.join(self._trace)}."
        )
        full = f"{trace} A way that works: {', '.join(self.solve())}."
        self._verdict = Verdict(
            0.0, False, feedback_text(self._room.feedback, "Not every box is on a goal.", trace, full)
        )
        return self._verdict


def _make(s: dict[str, Any], seed: int) -> Made:
    for attempt in range(1000):
        room = _room(s, random.Random(item_seed("room", seed, attempt)))
        moves = room.solve() if room else None
        if room and moves and len(moves) >= s["size"]:
            room = replace(room, turns=s["turns"] or 2 * len(moves) + 4)
            if room.turns >= len(moves):
                content = [
                    room.size,
                    *map(sorted, (room.floor, room.goals, room.boxes)),
                    room.start,
                    room.turns,
                ]
                return Made(PROMPT, room, content)
    raise ValueError(f"no room of size {s['size']} with turns={s['turns']} was found")


def _room(s: dict[str, Any], draw: random.Random) -> Sokoban | None:
    """A room played backwards from its solution: boxes are pulled away from their goals."""
    size = s["size"]
    cells = [(r, c) for r in range(size) for c in range(size)]
    floor = frozenset(cells) - frozenset(draw.sample(cells, round(s["walls"] * len(cells))))
    if len(floor) < s["boxes"] + 2:
        return None
    goals = frozenset(draw.sample(sorted(floor), s["boxes"]))
    boxes, at = goals, draw.choice(sorted(floor - goals))
    for _ in range(12 * size * s["boxes"]):
        dr, dc = draw.choice(list(MOVES.values()))
        to, behind = (at[0] + dr, at[1] + dc), (at[0] - dr, at[1] - dc)
        if to not in floor or to in boxes:
            continue
        if behind in boxes and draw.random() < 0.7:
            boxes = (boxes - {behind}) | {at}
        at = to
    return Sokoban(size, floor, goals, boxes, at, 0, s["feedback"]) if boxes != goals else None


KIND = Kind(
    "Push boxes onto goals (Sokoban)",
    (
        Param("size", int, 3, "cells a side inside the walls, 3 to 8"),
        Param("boxes", int, 1, "boxes, 1 to 3"),
        Param("walls", float, 0.1, "share of cells inside that are walls, 0 to 0.4"),
        Param("turns", int, 0, "replies allowed; 0: four more than twice the shortest way"),
        FEEDBACK,
        LEVEL,
    ),
    (
        {"size": 3, "boxes": 1, "walls": 0.0},
        {"size": 4, "boxes": 1},
        {"size": 5, "boxes": 1, "walls": 0.15},
        {"size": 5, "boxes": 2},
        {"size": 6, "boxes": 2, "walls": 0.15},
    ),
    lambda s: out_of_range(s, size=(3, 8), boxes=(1, 3), walls=(0, 0.4), turns=(0, 1000)),
    _make,
)
