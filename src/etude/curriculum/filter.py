"""Which groups are trained on. Where a filter refuses groups, the loop draws others until the batch is full or its
over-sampling budget (`run.oversample`) is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.settings import Setting
from etude.stages import Context, Filter
from etude.types import Group


def everything() -> Filter:
    """All groups."""
    return lambda groups, context: list(groups)


def mixed_only() -> Filter:
    """Groups whose rewards differ: a group-relative advantage is 0 in the others (dynamic sampling of DAPO,
    arXiv 2503.14476)."""
    return lambda groups, context: [g for g in groups if g.mixed]


def within(
    min_accuracy: Annotated[float, Setting("least share of right attempts", low=0, high=1)] = 0.2,
    max_accuracy: Annotated[float, Setting("greatest share of right attempts", low=0, high=1)] = 0.8,
    begin_at: Annotated[
        float, Setting("share of the run before which all groups are kept", low=0, high=1)
    ] = 0.0,
) -> Filter:
    """Groups of tasks that are neither too hard nor too easy for now: min_accuracy <= accuracy <= max_accuracy."""

    def keep(groups: Sequence[Group], context: Context) -> list[Group]:
        if begin_at and context.progress < begin_at:
            return list(groups)
        tried = [g for g in groups if g.episodes]
        return [
            g
            for g in tried
            if min_accuracy <= float(np.mean([e.correct for e in g.episodes])) <= max_accuracy
        ]

    return keep
