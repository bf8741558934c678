"""What second attempts change: accuracy of the first and of the second, and the four ways from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from etude.errors import UserError, nearest
from etude.rollout.basic import retry
from etude.rollout.second import Reflect, reconsider
from etude.types import Episode, Group

WAYS = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")


AGAIN: dict[str, Callable[[], Any]] = {
    "feedback": lambda: retry(2),  # a wrong answer hears the task's feedback
    "reconsider": reconsider,  # every answer is asked to look again, right or wrong
    "reflect": lambda: Reflect(remember=False),  # a wrong answer is reflected on first
}
"""How `etude eval --again` has a second attempt made."""


def second_attempt(name: str) -> Any:
    """The rollout of that name; None for "". Raises UserError for an unknown one."""
    if name and name not in AGAIN:
        raise UserError(f"there is no way '{name}' to try again{nearest(name, AGAIN)}")
    return AGAIN[name]() if name else None


def outcomes(episode: Episode) -> tuple[bool, bool]:
    """Whether the first attempt was right, and the last. Who was not asked again stays with the first."""
    return episode.verdicts[0].correct, episode.verdicts[-1].correct


def transitions(groups: Iterable[Group]) -> dict[str, float]:
    """Shares of the episodes with a verdict: `first` and `second` (right at the first, right at the last attempt),
    `again` (made more than one), and the four ways, which add up to 1: `right_wrong` was right first and wrong
    last. {} where no episode made a second attempt. Weighs every episode alike."""
    judged = [e for g in groups for e in g.episodes if e.verdicts and not e.failure]
    again = [len(e.verdicts) > 1 for e in judged]
    if not any(again):
        return {}
    return {"again": float(np.mean(again)), **_shares([outcomes(e) for e in judged])}


def _shares(found: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    first, last = np.array(found).T
    ways = (first & last, first & ~last, ~first & last, ~first & ~last)
    return {
        "first": float(first.mean()),
        "second": float(last.mean()),
        **{name: float(way.mean()) for name, way in zip(WAYS, ways, strict=True)},
    }
