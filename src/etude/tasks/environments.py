"""Task sources made here: worlds of several turns, and tasks whose checker says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks import constraints, program, sokoban, sums
from etude.tasks.check import NoText
from etude.tasks.extract import extract, value
from etude.tasks.kind import FEEDBACK, LEVEL, Kind, Made
from etude.tasks.lake import RULES, SLIPS, Lake, draw_map
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import Param, typed
from etude.types import Message, Task, Verdict


class EnvironmentSource:
    """A kind of `KINDS` as a source. Its own kind: `called` or its name; difficulty: its level.

    A task that is a world carries a `reference` (replies that win under luck 0, one a line), and the world's
    content stands in `meta["world_key"]`. Raises UserError for unknown names and values out of range.
    """

    def __init__(self, name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> None:
        if name not in KINDS:
            raise UserError(f"there is no world '{name}'{nearest(name, KINDS)}")
        self._kind = KINDS[name]
        self.environment, self.name = name, called or name
        self.kinds: tuple[str, ...] = (self.name,)
        self.given = typed(f"task '{name}'", given or {}, self._kind.params)
        fixed, distinct = self.given.pop("level", None), self._distinct()
        self._level = check_level(self.name, float(fixed or 0), distinct)
        self._levels = distinct if fixed is None else (self._level,)
        for level in distinct:
            why = self._kind.refuse(self._settings(level))
            if why:
                raise UserError(f"task '{name}': {why}")

    def levels(self, kind: str) -> tuple[float, ...]:
        """0, 1, ...: each larger than the last; the one level that the source was fixed to."""
        return self._levels

    def _distinct(self) -> tuple[float, ...]:
        """All levels; those that what was given makes alike are named once."""
        distinct = {repr(self._settings(i)): float(i) for i in reversed(range(len(self._kind.levels)))}
        return tuple(sorted(distinct.values()))

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        """`n` tasks; see `etude.tasks.source.Source`."""
        level = self._level if difficulty is None else check_level(kind, difficulty, self.levels(kind))
        return [self._task(level, item_seed("world", self.environment, seed, i)) for i in range(n)]

    def describe(self) -> Info:
        """For the catalogue."""
        return info(self.environment)

    def fingerprint(self) -> str:
        """Changes with the parameters."""
        return digest([self.name, self.environment, self.given, self._level])

    def _settings(self, level: float) -> dict[str, Any]:
        defaults = {p.name: p.default for p in self._kind.params}
        return {**defaults, **self._kind.levels[int(level)], **self.given}

    def _task(self, level: float, seed: int) -> Task:
        settings = self._settings(level)
        try:
            made = self._kind.make(settings, seed)
        except ValueError as error:
            raise UserError(f"task '{self.name}': {error}") from error
        reference = made.reference
        if made.environment is not None:
            reference = "\n".join(made.environment().solve())  # type: ignore[attr-defined]
        return Task(
            prompt=(Message("user", made.prompt),),
            check=made.check or NoText(self.name),
            kind=self.name,
            difficulty=level,
            answer=made.answer,
            reference=reference,
            hints=made.hints,
            environment=made.environment,
            meta={"source": self.name, "world_key": made.content, "feedback": settings["feedback"]},
        )


@dataclass(frozen=True)
class Guess:
    """Makes a fresh game: find `target` in 1..`highest` within `turns` guesses."""

    target: int
    highest: int
    turns: int
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> Guessing:
        """A new episode; nothing in it is left to chance."""
        return Guessing(self)


class Guessing:
    """One game: `etude.types.World`. Every wrong guess is answered with higher or lower."""

    def __init__(self, game: Guess) -> None:
        self._game = game
        self._tried: list[str] = []
        self._verdict: Verdict | None = None

    def observe(self) -> str:
        """How many guesses are left."""
        left = self._game.turns - len(self._tried)
        return f"You have {left} {'guess' if left == 1 else 'guesses'}. What is your guess?"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the last number of the reply; a reply without one costs the guess. Raises RuntimeError
        after the end."""
        if self._verdict is not None:
            raise RuntimeError("the game is over: open task.world() for a new one")
        found = extract(text, "last_number")
        number = value(found) if found is not None else None
        if number is None:
            said = "No number was found in your reply."
        elif number == self._game.target:
            self._verdict = Verdict(1.0, True)
            return "That is the number.", self._verdict
        else:
            said = f"The number is {'higher' if number < self._game.target else 'lower'} than {found}."
        self._tried.append(f"{found or 'nothing'}: {said}")
        if len(self._tried) >= self._game.turns:
            trace = f"Your guesses: {' '.join(self._tried)}"
            feedback = {
                "none": "",
                "unary": "You did not find the number.",
                "hint": trace,
                "full": f"{trace} It was {self._game.target}.",
            }
            self._verdict = Verdict(0.0, False, feedback[self._game.feedback])
            return "You have no guesses left.", self._verdict
        return f"{said} {self.observe()}", None

    def solve(self) -> list[str]:
        """The guesses of a player who halves what is left; the last one hits."""
        low, high = 1, self._game.highest
        replies: list[str] = []
        while len(replies) < self._game.turns - 1:
            middle = (low + high) // 2
            replies.append(str(middle))
            if middle == self._game.target:
                return replies
            low, high = (middle + 1, high) if middle < self._game.target else (low, middle - 1)
        return [*replies, str(self._game.target)]


def info(name: str) -> Info:
    """The catalogue's entry of a kind."""
    kind = KINDS[name]
    levels = {name: tuple(float(i) for i in range(len(kind.levels)))}
    carries = (
        ("reference", "feedback", "steps", "environment") if kind.form == "environment" else ("feedback",)
    )
    return Info(name, kind.form, kind.line, kind.params, levels, carries)


def _lake(settings: dict[str, Any], seed: int) -> Made:
    size = settings["size"]
    turns = settings["turns"] or 4 * size * (3 if settings["slippery"] else 1)
    for attempt in range(100):
        rows = draw_map(size, settings["holes"], item_seed("map", seed, attempt))
        slips = item_seed("slips", seed, attempt) if settings["slippery"] else None
        lake = Lake(rows, slips, turns, settings["feedback"])
        if lake.solve() is not None:
            prompt = RULES.format(slips=SLIPS if settings["slippery"] else "")
            return Made(prompt, lake, [list(rows), slips, turns])
    raise ValueError(f"no map of size {size} with turns={turns} can be won; allow more turns")


def _refuse_lake(s: dict[str, Any]) -> str:
    if not 2 <= s["size"] <= 16:
        return f"size={s['size']} is out of range; it must be from 2 to 16"
    if not 0 <= s["holes"] <= 0.6:
        return f"holes={s['holes']:g} is out of range; it must be from 0 to 0.6"
    least = 2 * (s["size"] - 1)
    if s["turns"] and s["turns"] < least:
        return f"turns={s['turns']} is too few for size {s['size']}; it must be 0 or at least {least}"
    return ""


def _guess(settings: dict[str, Any], seed: int) -> Made:
    highest = settings["highest"]
    turns = settings["turns"] or highest.bit_length()
    target = 1 + item_seed("target", seed) % highest
    prompt = (
        f"I think of a whole number from 1 to {highest}. Find it within {turns} guesses. "
        "After each guess I say whether the number is higher or lower. Answer with one number each turn."
    )
    return Made(prompt, Guess(target, highest, turns, settings["feedback"]), [target, highest, turns])


def _refuse_guess(s: dict[str, Any]) -> str:
    if not 2 <= s["highest"] <= 10**9:
        return f"highest={s['highest']} is out of range; it must be from 2 to 1000000000"
    return f"turns={s['turns']} is out of range; it must be 0 or more" if s["turns"] < 0 else ""


KINDS = {
    "frozen_lake": Kind(
        "Walk over a frozen lake from start to goal without stepping into a hole (Gymnasium toy text)",
        (
            Param("size", int, 3, "cells a side, 2 to 16"),
            Param("holes", float, 0.2, "share of cells that are holes, 0 to 0.6"),
            Param("slippery", bool, False, "whether a step may go to the side"),
            Param("turns", int, 0, "replies allowed; 0: four times the size, twelve times if slippery"),
            FEEDBACK,
            LEVEL,
        ),
        ({"size": 3}, {"size": 4}, {"size": 5}, {"size": 6}, {"size": 8}),
        _refuse_lake,
        _lake,
    ),
    "number_guess": Kind(
        "Find a number from its answers higher and lower",
        (
            Param("highest", int, 10, "the number lies in 1..highest"),
            Param("turns", int, 0, "guesses allowed; 0: as many as halving needs"),
            FEEDBACK,
            LEVEL,
        ),
        ({"highest": 10}, {"highest": 30}, {"highest": 100}, {"highest": 1000}, {"highest": 10000}),
        _refuse_guess,
        _guess,
    ),
    "sokoban_world": sokoban.KIND,
    "calculator": sums.CALCULATOR,
    "running_total": sums.RUNNING_TOTAL,
    "constraints": constraints.KIND,
    "program": program.KIND,
}
