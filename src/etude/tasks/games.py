"""Games as tasks: what the sources of all games share, and a source for games of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etude.errors import UserError
from etude.tasks.check import NoText
from etude.tasks.game import PLAYERS, Game, Match
from etude.tasks.kind import FEEDBACK, LEVEL, Made
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import Param, typed
from etude.types import Message, Task


def params(best: str, others: str = "random, first or ") -> tuple[Param, ...]:
    """Those that the tasks of every game have. `best`: how its best scripted player is called."""
    return (
        Param("opponent", str, "random", f"scripted opponent: {others}{best}"),
        Param("seat", int, -1, "the player's seat, 0 or 1; -1: either, by the task"),
        Param("shows", str, best, "the scripted player whose replies are the task's solution"),
        FEEDBACK,
        LEVEL,
    )


def refused(settings: Mapping[str, Any], game: Any) -> str:
    """A sentence about the first setting of a game's tasks that cannot be used, or ""."""
    known = [*PLAYERS, *getattr(game, "players", {})]
    for name in ("opponent", "shows"):
        if settings[name] not in known:
            return f"{name}={settings[name]} is none of {', '.join(known)}"
    return "" if settings["seat"] in (-1, 0, 1) else f"seat={settings['seat']} is none of -1, 0, 1"


def made(
    make: Callable[[int], Game],
    rules: str,
    most: float,
    settings: Mapping[str, Any],
    seed: int,
    *content: Any,
) -> Made:
    """One task: a deal, a seat and an opponent."""
    seat = settings["seat"] if settings["seat"] >= 0 else item_seed("seat", seed) % 2
    deal = item_seed("deal", seed)
    match = Match(make, deal, seat, settings["opponent"], settings["shows"], most, settings["feedback"])
    return Made(rules, match, [*content, deal, seat, settings["opponent"]])


class GameSource:
    """A game of one's own as a source of tasks (`etude.tasks.source.Source`): `TaskSet([GameSource("nim", Nim, RULES)])`.

    `make`: a picklable `(seed) -> Game`. `rules`: what a player is told once, before the first turn. `most`: the most
    that a seat can win. `given`: opponent, seat, shows and feedback. A game without `moves()` has no scripted players: it can
    be played in both seats (recipe spiral), and its tasks carry no solution. Raises UserError for settings that do not exist."""

    def __init__(
        self,
        name: str,
        make: Callable[[int], Game],
        rules: str,
        most: float = 1.0,
        given: Mapping[str, Any] | None = None,
        line: str = "a game of one's own",
    ) -> None:
        self.name, self.kinds = name, (name,)
        self._make, self._rules, self._most, self._line = make, rules, most, line
        self._params = params("random", "")
        own = {p.name: p.default for p in self._params} | typed(f"task '{name}'", given or {}, self._params)
        game = make(0)
        self._scripted = _offers_moves(game)
        if why := refused(own, game) if self._scripted else "":
            raise UserError(f"task '{name}': {why}")
        self._own = own

    def levels(self, kind: str) -> tuple[float, ...]:
        return (0.0,)

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        check_level(kind, difficulty or 0.0, self.levels(kind))
        return [self._task(item_seed("game", self.name, seed, i)) for i in range(n)]

    def _task(self, seed: int) -> Task:
        item = made(self._make, self._rules, self._most, self._own, seed, self.name)
        assert item.environment is not None
        reference = None
        if self._scripted:
            reference = "\n".join(item.environment().solve())  # type: ignore[attr-defined]
        return Task(
            (Message("user", item.prompt),),
            NoText(self.name),
            kind=self.name,
            reference=reference,
            environment=item.environment,
            meta={"source": self.name, "environment_key": item.content, "feedback": self._own["feedback"]},
        )

    def describe(self) -> Info:
        carries = (("reference",) if self._scripted else ()) + ("feedback", "environment")
        return Info(self.name, "environment", self._line, self._params, {self.name: (0.0,)}, carries)

    def fingerprint(self) -> str:
        return digest([self.name, self._rules, self._own])


def _offers_moves(game: Any) -> bool:
    try:
        return bool(game.moves())
    except (AttributeError, UserError):
        return False
