"""Which groups are worth training on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from etude.types import Group

Select = Callable[[Sequence[Group], Any], list[Group]]


def everything() -> Select:
    return lambda groups, context=None: list(groups)


def mixed_only() -> Select:
    """Only groups whose rewards differ: the others have no group-relative signal (DAPO's dynamic sampling,
    arXiv 2503.14476). The loop draws again until the batch is full or its over-sampling budget is spent."""
    return lambda groups, context=None: [g for g in groups if g.mixed]


def solved_only() -> Select:
    """Only groups with at least one correct episode."""
    return lambda groups, context=None: [g for g in groups if any(e.correct for e in g.episodes)]
