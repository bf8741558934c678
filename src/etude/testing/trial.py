"""A recipe put to the laws, its rows carried out, and what it lacks, in words for its author."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from etude.recipe import Recipe
from etude.testing.laws import LAWS
from etude.testing.rows import check, missing


@dataclass
class Trial:
    passed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"  ok       {says}" for says in self.passed]
        lines += [f"  BROKEN   {says}" for says in self.broken]
        lines += [f"  missing  {says}" for says in self.missing]
        return "\n".join(lines)


def put_to_trial(recipe: Recipe) -> Trial:
    """Runs every law and row; an exception of the recipe's own is reported with its line."""
    trial = Trial()

    def attempt(label: str, work: Callable[[], None]) -> None:
        try:
            work()
        except AssertionError as error:
            trial.broken.append(f"{label}: {error}")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            trial.broken.append(
                f"{label}: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
            )
        else:
            trial.passed.append(label)

    for law in LAWS:
        attempt(law.__name__.replace("_", " "), lambda law=law: law(recipe))  # type: ignore[misc]
    for row in recipe.examples:
        kind = type(row).__name__
        attempt(f"{kind}: {row.says}", lambda row=row: check(recipe, row))  # type: ignore[misc]
    attempt("every stage of its own has a row", lambda: trial.missing.extend(missing(recipe)))
    if trial.missing:
        trial.passed = trial.passed[:-1]
    if not recipe.examples:
        trial.missing.append("no row at all: see `examples` in what `etude new method` writes")
    return trial
