"""What credit and objective say to each other: named rows of numbers, one a token, declared on both sides.

A credit stage declares the rows that it may write, where it is made:

    @writes("policy", "distilled", extras=("returns",))
    def experience(...): ...

An objective declares those that it reads: the weight row of each of its terms, and `extras`. Rows that its settings
leave unread stand in `silent`. A row that is read and never written would be zeros without a word; one that is
written and never read would be a lesson that nobody learns. Both are errors when a run is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from etude.errors import UserError
from etude.objective.terms import Objective
from etude.settings import Stage
from etude.types import Signal

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rows:
    weights: frozenset[str] = frozenset({"policy"})
    extras: frozenset[str] = frozenset()


def writes(*weights: str, extras: Iterable[str] = ()) -> Callable[[Factory], Factory]:
    """Declares the rows that the credit made by a factory may write. Undeclared: the weight row "policy" alone."""

    def declare(factory: Factory) -> Factory:
        factory.writes = Rows(frozenset(weights), frozenset(extras))  # type: ignore[attr-defined]
        return factory

    return declare


def written(credit: Stage) -> Rows:
    rows: Rows = getattr(credit.factory, "writes", Rows())
    return rows


def agree(credit: Stage, objective: Objective, where: str) -> None:
    """UserError naming a row that is read and never written, or written and never read. `where`: whose stages."""
    rows = written(credit)
    read = {term.weight for term in objective.terms}
    silent = objective.silent
    laid = objective.reads  # the loop writes the log-probabilities of auxiliary models
    for kind, has, wants in (
        ("weight row", rows.weights, read),
        ("extra", rows.extras | laid, objective.extras | laid),
    ):
        if missing := sorted(wants - has):
            raise UserError(
                f"{where}: the objective reads the {kind} '{missing[0]}', which credit never writes"
            )
        if unread := sorted(has - wants - silent):
            raise UserError(
                f"{where}: credit writes the {kind} '{unread[0]}', which the objective never reads"
            )


def undeclared(credit: Stage, signals: Sequence[Signal]) -> str | None:
    """The first row among `signals` that `credit` did not declare."""
    rows = written(credit)
    for signal in signals:
        for name in sorted((signal.weights.keys() - rows.weights) | (signal.extras.keys() - rows.extras)):
            return name
    return None
