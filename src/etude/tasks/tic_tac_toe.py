"""Tic-tac-toe, with a perfect player to measure oneself against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from etude.seeds import generator
from etude.tasks.game import Player, Returns, move_of
from etude.tasks.games import made, params, refused
from etude.tasks.kind import Kind, out_of_range
from etude.tasks.spec import Param

MARKS = "XO"
LINES = ("012", "345", "678", "036", "147", "258", "048", "246")
RULES = (
    "Tic-tac-toe: the players put their mark, X or O, into a free cell by turns; whoever has three in a row, a column or a "
    "diagonal wins. Free cells show their numbers. Give the number of a free cell, as <answer>4</answer>."
)
EMPTY = "012345678"


def winner(board: str) -> int | None:
    """The seat that has three in a line."""
    for line in LINES:
        marks = {board[int(i)] for i in line}
        if len(marks) == 1:
            return MARKS.index(marks.pop())
    return None


def free(board: str) -> list[str]:
    """The free cells."""
    return [c for c in board if c.isdigit()]


def put(board: str, cell: str, seat: int) -> str:
    return board.replace(cell, MARKS[seat])


@cache
def worth(board: str, seat: int) -> int:
    """What the seat on turn gets under perfect play from here: 1, 0 or -1."""
    if winner(board) is not None:
        return -1  # the other seat has just won
    cells = free(board)
    return max(-worth(put(board, c, seat), 1 - seat) for c in cells) if cells else 0


def perfect(game: Any, seat: int, rng: np.random.Generator) -> str:
    """One of the best moves, each equally likely."""
    values = {c: -worth(put(game.board, c, seat), 1 - seat) for c in free(game.board)}
    best = [c for c, v in values.items() if v == max(values.values())]
    return best[int(rng.integers(len(best)))]


class TicTacToe:
    """One game: `etude.tasks.game.Game`. Seat 0 has X and begins. `opening`: moves made at random beforehand."""

    players: ClassVar[Mapping[str, Player]] = {"perfect": perfect}

    def __init__(self, seed: int = 0, opening: int = 0) -> None:
        self.board, rng = EMPTY, generator(seed, "opening")
        for i in range(opening):
            cells = free(self.board)
            self.board = put(self.board, cells[int(rng.integers(len(cells)))], i % 2)

    def turn(self) -> int | None:
        over = winner(self.board) is not None or not free(self.board)
        return None if over else (9 - len(free(self.board))) % 2

    def moves(self) -> list[str]:
        return free(self.board)

    def observe(self, seat: int) -> str:
        rows = "\n".join(" ".join(self.board[i : i + 3]) for i in (0, 3, 6))
        return f"You are {MARKS[seat]}.\n{rows}\nYour move?"

    def act(self, text: str) -> bool:
        move, seat = move_of(text), self.turn()
        if seat is None or move not in free(self.board):
            return False
        self.board = put(self.board, move, seat)
        return True

    def returns(self) -> Returns:
        won = winner(self.board)
        return (0.0, 0.0) if won is None else (1.0, -1.0) if won == 0 else (-1.0, 1.0)


@dataclass(frozen=True)
class Opened:
    """Makes games with so many moves made beforehand."""

    opening: int

    def __call__(self, seed: int) -> TicTacToe:
        return TicTacToe(seed, self.opening)


KIND = Kind(
    "Tic-tac-toe against a scripted opponent, or itself (recipe spiral)",
    (
        Param("opening", int, 0, "moves made at random beforehand, 0 to 4"),
        *params("perfect"),
    ),
    ({"opening": 0}, {"opening": 1}, {"opening": 2}),
    lambda s: out_of_range(s, opening=(0, 4)) or refused(s, TicTacToe),
    lambda s, seed: made(Opened(s["opening"]), RULES, 1.0, s, seed, s["opening"]),
)
