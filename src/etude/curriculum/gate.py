"""Which groups are worth training on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.settings import Setting
from etude.types import Group

Select = Callable[[Sequence[Group], Any], list[Group]]


def everything() -> Select:
    return _keep(lambda group: True)


def mixed_only() -> Select:
    """Only groups whose rewards differ: the others have no group-relative signal (DAPO's dynamic sampling,
    arXiv 2503.14476). The loop draws again until the batch is full or its over-sampling budget is spent."""
    return _keep(lambda group: group.mixed)


def solved_only() -> Select:
    """Only groups with at least one correct episode."""
    return _keep(lambda group: any(e.correct for e in group.episodes))


def _keep(wanted: Callable[[Group], bool]) -> Select:
    def select(groups: Sequence[Group], context: Any = None) -> list[Group]:
        return [g for g in groups if wanted(g)]

    return select


def most_varied(
    share: Annotated[float, Setting("share of the drawn groups that is kept", low=0.01, high=1)] = 0.25,
) -> Select:
    """The groups whose rewards vary most (standard deviation), at least one; the loop draws others instead
    (UFO, arXiv 2507.14295)."""

    def select(groups: Sequence[Group], context: Any = None) -> list[Group]:
        tried = [g for g in groups if g.episodes]
        spread = np.array([g.rewards.std() for g in tried])
        kept = np.argsort(-spread, kind="stable")[: max(1, round(share * len(tried)))]
        return [tried[i] for i in sorted(kept)]

    return select


def shortened(one: Group, length: float) -> Group:
    """The group with reward 0 for answers of more than `length` sampled tokens."""
    cut = (e.with_scores({"reward": 0.0}) if e.sampled.sum() > length else e for e in one.episodes)
    return replace(one, episodes=tuple(cut))


def by_difficulty(
    threshold: Annotated[float, Setting("mean reward above which a task is easy", low=0, high=1)] = 0.5,
    short: Annotated[float, Setting("limit of easy tasks, in run.max_tokens", low=0, high=1)] = 0.5,
) -> Select:
    """Easy tasks are held to a shorter limit; then only groups of mixed reward are kept
    (DA-DLER, arXiv 2510.15110)."""

    def fair(one: Group) -> Group:
        easy = one.rewards.mean() > threshold
        return shortened(one, short * one.episodes[0].notes["limit"]) if easy else one

    def select(groups: Sequence[Group], context: Any = None) -> list[Group]:
        return mixed_only()([fair(g) for g in groups], context)

    return select
