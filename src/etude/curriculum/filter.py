"""Which groups are worth training on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from etude.types import Group

Filter = Callable[[Sequence[Group], Any], list[Group]]


def everything() -> Filter:
    return _keep(lambda group: True)


def mixed_only() -> Filter:
    """Only groups whose rewards differ: the others have no group-relative signal (DAPO's dynamic sampling,
    arXiv 2503.14476). The loop draws again until the batch is full or its over-sampling budget is spent."""
    return _keep(lambda group: group.mixed)


def _keep(wanted: Callable[[Group], bool]) -> Filter:
    def filter(groups: Sequence[Group], context: Any = None) -> list[Group]:
        return [g for g in groups if wanted(g)]

    return filter
