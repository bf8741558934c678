"""FrozenLake as a text environment. The rules of moving are Gymnasium's (`gymnasium.envs.toy_text.frozen_lake`)."""

from __future__ import annotations

import random
import re
from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from etude.tasks.kind import FEEDBACK, LEVEL, Kind, Made
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.types import Verdict

MOVES = ("left", "down", "right", "up")  # Gymnasium's numbering
_WORD = re.compile(r"\b(left|down|right|up)\b", re.IGNORECASE)

RULES = """You walk on a frozen lake. P is you, F is ice, H is a hole, G is the goal, S is where you started.
Reach G and do not step into H. You cannot leave the map.{slips}
Answer with one word each turn: up, down, left or right."""

SLIPS = " The ice is slippery: a step may go to the side instead."


@dataclass(frozen=True)
class FrozenLake:
    """Makes a fresh walk over one map: `FrozenLake(...)(seed)`. `rows`: the map in Gymnasium's letters. `slips`: seed
    of the slipping; None: no slipping."""

    rows: tuple[str, ...]
    slips: int | None
    turns: int
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> FrozenLakeEnvironment:
        """A new episode. Where the ice is slippery, each `seed` slips in its own way."""
        if self.slips is None:
            return FrozenLakeEnvironment(self)
        return FrozenLakeEnvironment(replace(self, slips=item_seed("luck", self.slips, seed)))

    def chance(self, turn: int) -> float:
        """The draw in [0, 1) that decides where a step slips to."""
        return 0.0 if self.slips is None else item_seed("slip", self.slips, turn) / 2**63

    def move(self, state: int, action: int, turn: int) -> int:
        """The cell (row * columns + column) that a step leads to."""
        total, seed = 0.0, self.chance(turn)
        outcomes = _table(self.rows, self.slips is not None)[state][action]
        for probability, cell, _, _ in outcomes:
            total += probability
            if seed < total:
                return int(cell)
        return int(outcomes[-1][1])

    def letter(self, state: int) -> str:
        """What the cell is: S, F, H or G."""
        return self.rows[state // len(self.rows[0])][state % len(self.rows[0])]

    def solve(self) -> list[str] | None:
        """The shortest winning walk as replies; None where there is none within the turns."""
        start = next(i for i in range(len(self.rows) * len(self.rows[0])) if self.letter(i) == "S")
        paths: dict[int, tuple[int, ...]] = {start: ()}
        for turn in range(self.turns):
            reached: dict[int, tuple[int, ...]] = {}
            for state, path in paths.items():
                for action in range(len(MOVES)):
                    after = self.move(state, action, turn)
                    if self.letter(after) == "G":
                        return [MOVES[a] for a in (*path, action)]
                    if self.letter(after) != "H":
                        reached.setdefault(after, (*path, action))
            paths = reached
        return None


class FrozenLakeEnvironment:
    """One episode: `etude.types.Environment`. The verdict comes on the goal (reward 1), in a hole or when the
    turns are used up (reward 0)."""

    def __init__(self, lake: FrozenLake) -> None:
        self._lake = lake
        cells = len(lake.rows) * len(lake.rows[0])
        self._cell = next(i for i in range(cells) if lake.letter(i) == "S")
        self._trace: list[str] = []
        self._verdict: Verdict | None = None

    def observe(self) -> str:
        """The map with the player on it."""
        columns = len(self._lake.rows[0])
        grid = [list(row) for row in self._lake.rows]
        grid[self._cell // columns][self._cell % columns] = "P"
        return "\n".join(" ".join(row) for row in grid)

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the last of up, down, left and right in the reply; a reply without one costs the turn.
        Raises RuntimeError after the end."""
        if self._verdict is not None:
            raise RuntimeError("the walk is over: call task.environment() for a new one")
        words = _WORD.findall(text)
        if not words:
            self._trace.append(f"turn {len(self._trace) + 1}: no move was understood")
            said = "No move was found in your reply. Answer up, down, left or right.\n" + self.observe()
        else:
            move = words[-1].lower()
            self._cell = self._lake.move(self._cell, MOVES.index(move), len(self._trace))
            self._trace.append(f"turn {len(self._trace) + 1}: {move} to {self._place()}")
            said = self.observe()
        letter = self._lake.letter(self._cell)
        if letter == "G":
            self._verdict = Verdict(1.0, True)
            return "You reached the goal.", self._verdict
        if letter == "H":
            return self._lost("You fell into a hole.")
        if len(self._trace) >= self._lake.turns:
            return self._lost("You have no turns left.")
        return said, None

    def solve(self) -> list[str]:
        """Replies that win from the start. Raises ValueError on a map that cannot be won."""
        replies = self._lake.solve()
        if replies is None:
            raise ValueError("this map cannot be won within its turns")
        return replies

    def _lost(self, how: str) -> tuple[str, Verdict]:
        trace = f"{how} Your walk: {'; '.join(self._trace)}."
        still = replace(self._lake, slips=None).solve()  # another attempt slips in another way
        works = "A way that works" if self._lake.slips is None else "A way that works without a slip"
        full = trace + (f" {works}: {', '.join(still)}." if still else "")
        said = {"none": "", "unary": "You did not reach the goal.", "hint": trace, "full": full}
        self._verdict = Verdict(0.0, False, said[self._lake.feedback])
        return how, self._verdict

    def _place(self) -> str:
        row, column = divmod(self._cell, len(self._lake.rows[0]))
        return f"row {row + 1}, column {column + 1}"


def draw_map(size: int, holes: float, seed: int) -> tuple[str, ...]:
    """A square map of `size` cells a side with a share `holes` of holes, and always a way from the start
    (top left) to the goal (bottom right): where chance leaves none, holes on one way are filled."""
    draw = random.Random(seed)
    inner = list(range(1, size * size - 1))
    count = round(holes * len(inner))
    for _ in range(50):
        cells = set(draw.sample(inner, count))
        if _open(size, cells):
            break
    else:
        steps = [1] * (size - 1) + [size] * (size - 1)
        draw.shuffle(steps)
        cells -= {sum(steps[:i]) for i in range(len(steps))}
    letters = ["H" if i in cells else "F" for i in range(size * size)]
    letters[0], letters[-1] = "S", "G"
    return tuple("".join(letters[r * size : (r + 1) * size]) for r in range(size))


def _open(size: int, holes: set[int]) -> bool:
    """Whether the goal can be reached."""
    seen, todo = {0}, deque([0])
    while todo:
        row, column = divmod(todo.popleft(), size)
        for r, c in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            cell = r * size + c
            if 0 <= r < size and 0 <= c < size and cell not in holes and cell not in seen:
                seen.add(cell)
                todo.append(cell)
    return size * size - 1 in seen


@lru_cache(maxsize=4096)
def _table(rows: tuple[str, ...], slippery: bool) -> Any:
    """Gymnasium's transition table: [state][action] -> [(probability, next state, reward, over)]."""
    from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

    return FrozenLakeEnv(desc=list(rows), is_slippery=slippery).P


def _make(settings: dict[str, Any], seed: int) -> Made:
    size = settings["size"]
    turns = settings["turns"] or 4 * size * (3 if settings["slippery"] else 1)
    for attempt in range(100):
        rows = draw_map(size, settings["holes"], item_seed("map", seed, attempt))
        slips = item_seed("slips", seed, attempt) if settings["slippery"] else None
        lake = FrozenLake(rows, slips, turns, settings["feedback"])
        if lake.solve() is not None:
            prompt = RULES.format(slips=SLIPS if settings["slippery"] else "")
            return Made(prompt, lake, [list(rows), slips, turns])
    raise ValueError(f"no map of size {size} with turns={turns} can be won; allow more turns")


def _refuse(s: dict[str, Any]) -> str:
    if not 2 <= s["size"] <= 16:
        return f"size={s['size']} is out of range; it must be from 2 to 16"
    if not 0 <= s["holes"] <= 0.6:
        return f"holes={s['holes']:g} is out of range; it must be from 0 to 0.6"
    least = 2 * (s["size"] - 1)
    if s["turns"] and s["turns"] < least:
        return f"turns={s['turns']} is too few for size {s['size']}; it must be 0 or at least {least}"
    return ""


KIND = Kind(
    "FrozenLakeEnvironment over a frozen lake from start to goal without stepping into a hole (Gymnasium toy text)",
    (
        Param("size", int, 3, "cells a side, 2 to 16"),
        Param("holes", float, 0.2, "share of cells that are holes, 0 to 0.6"),
        Param("slippery", bool, False, "whether a step may go to the side"),
        Param("turns", int, 0, "replies allowed; 0: four times the size, twelve times if slippery"),
        FEEDBACK,
        LEVEL,
    ),
    ({"size": 3}, {"size": 4}, {"size": 5}, {"size": 6}, {"size": 8}),
    _refuse,
    _make,
)
