"""Rewards made of a verdict and the shape of the answer."""

from __future__ import annotations

from typing import Annotated

from etude.settings import Setting
from etude.types import Episode


def overlong_share(length: int, limit: int, buffer: int) -> float:
    """0 up to limit - buffer, rising linearly to 1 at the limit."""
    return min(1.0, max(0.0, (length - (limit - buffer)) / buffer))


def soft_overlong(
    buffer: Annotated[
        float, Setting("share of the length limit in which the punishment grows", low=0.01, high=1)
    ] = 0.25,
    penalty: Annotated[float, Setting("punishment at the limit", low=0, high=1)] = 1.0,
):
    """The verdict's reward minus penalty x overlong_share of the longest reply (DAPO's soft overlong
    punishment, arXiv 2503.14476, eq. 13)."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        limit = episode.notes["limit"]
        longest = max((len(s) for s in episode.spans if s.sampled), default=0)
        over = overlong_share(longest, limit, max(1, round(buffer * limit)))
        correct = episode.verdict.reward
        return {"reward": correct - penalty * over, "verdict": correct, "overlong": -penalty * over}

    return reward
