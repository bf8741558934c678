"""Which groups are trained on. Where a filter refuses groups, the loop draws others until the batch is full or its
over-sampling budget (`run.oversample`) is spent (`stages.Filter`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.settings import Setting
from etude.stages import Context, Filter
from etude.types import Group

VERDICT = "verdict"  # score: the verdict's reward, where a reward stage adds to it or takes from it


def everything() -> Filter:
    """All groups."""
    return lambda groups, context: list(groups)


def mixed_only() -> Filter:
    """Groups whose rewards differ: a group-relative advantage is 0 in the others."""
    return lambda groups, context: [g for g in groups if g.mixed]


def mixed_verdicts() -> Filter:
    """Groups whose rewards differ before they are shaped: where all answers are right, or all wrong, their lengths or
    their looks alone are no reason to train (DAPO). A reward of the user's own, which has no such part, is looked at
    as it is."""

    def keep(groups: Sequence[Group], context: Context) -> list[Group]:
        outcomes = ([e.scores.get(VERDICT, e.reward) for e in g.episodes] for g in groups)
        return [g for g, row in zip(groups, outcomes, strict=True) if row and np.ptp(row) > 1e-9]

    return keep


def within(
    min_accuracy: Annotated[float, Setting("least share of right attempts", low=0, high=1)] = 0.2,
    max_accuracy: Annotated[float, Setting("greatest share of right attempts", low=0, high=1)] = 0.8,
    begin_at: Annotated[float, Setting("share of the run at which filtering begins", low=0, high=1)] = 0.0,
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
