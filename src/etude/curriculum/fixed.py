"""Curricula by rule: evenly, in a fixed mixture, from easy to hard, and at a difficulty that follows the rewards."""

from __future__ import annotations

from etude.curriculum.arms import Arms
from etude.errors import UserError


def levels_of(arms: Arms) -> list[tuple[str, list[tuple[int, float]]]]:
    """Of every kind, its arms with their levels, rising. UserError where no kind has a second level."""
    kinds: dict[str, list[tuple[int, float]]] = {}
    for k, arm in enumerate(arms):
        ((kind, level),) = arm.options
        assert level is not None  # an arm of kind and level is one such pair
        kinds.setdefault(kind, []).append((k, level))
    if all(len(found) < 2 for found in kinds.values()):
        raise UserError(
            f"this curriculum chooses among levels, and each of these kinds has a single one: {', '.join(arms.names)}; "
            "lab has several, so have generators whose level is not fixed"
        )
    return [(kind, sorted(found, key=lambda f: f[1])) for kind, found in kinds.items()]
