"""Training only on tasks that are neither too hard nor too easy for now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.curriculum.filter import Filter
from etude.settings import Setting
from etude.types import Group


def within(
    low: Annotated[float, Setting("least share of right attempts", low=0, high=1)] = 0.2,
    high: Annotated[float, Setting("greatest share of right attempts", low=0, high=1)] = 0.8,
    begin: Annotated[
        float, Setting("share of the budget before which all are trained on", low=0, high=1)
    ] = 0.0,
) -> Filter:
    """Only tasks that are neither too hard nor too easy; others are drawn instead."""

    def filter(groups: Sequence[Group], context: Any = None) -> list[Group]:
        if begin and context.progress < begin:
            return list(groups)
        tried = [g for g in groups if g.episodes]
        return [g for g in tried if low <= float(np.mean([e.correct for e in g.episodes])) <= high]

    return filter
