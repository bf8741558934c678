"""Task sources made here: environments of several turns, and tasks whose checker says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks import (
    constraints,
    frozen_lake,
    kuhn_poker,
    number_guess,
    program,
    sokoban,
    sums,
    tic_tac_toe,
)
from etude.tasks.check import NoText
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import typed
from etude.tasks.worlds import bugs, encyclopedia, house, sheet, shop
from etude.types import Message, Task


class EnvironmentSource:
    """A kind of `KINDS` as a source. Its own kind: `called` or its name; difficulty: its level.

    A task with an environment carries a `reference` (replies that win under seed 0, one a line), and the environment's
    content stands in `meta["environment_key"]`. Raises UserError for unknown names and values out of range.
    """

    def __init__(self, name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> None:
        if name not in KINDS:
            raise UserError(f"there is no environment '{name}'{nearest(name, KINDS)}")
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
            meta={"source": self.name, "environment_key": made.content, "feedback": settings["feedback"]},
        )


def info(name: str) -> Info:
    """The catalogue's entry of a kind."""
    kind = KINDS[name]
    levels = {name: tuple(float(i) for i in range(len(kind.levels)))}
    carries = (
        ("reference", "feedback", "steps", "environment") if kind.form == "environment" else ("feedback",)
    )
    return Info(name, kind.form, kind.line, kind.params, levels, carries)


KINDS = {
    "frozen_lake": frozen_lake.KIND,
    "number_guess": number_guess.KIND,
    "sokoban_world": sokoban.KIND,
    "calculator": sums.CALCULATOR,
    "running_total": sums.RUNNING_TOTAL,
    "constraints": constraints.KIND,
    "program": program.KIND,
    "kuhn_poker": kuhn_poker.KIND,
    "tic_tac_toe": tic_tac_toe.KIND,
    "house": house.KIND,
    "shop": shop.KIND,
    "encyclopedia": encyclopedia.KIND,
    "sheet": sheet.KIND,
    "bugs": bugs.KIND,
}
