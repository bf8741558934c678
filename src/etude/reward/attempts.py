"""Rewards of episodes with several attempts, and how one attempt's reward may look at another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from etude.rollout.attempts import ANSWERS, notes_of
from etude.settings import Setting
from etude.stages import Reward
from etude.types import Episode

FIRST, SECOND = "first", "second"
"""Scores: the rewards of the first and, where there was one, of the second attempt."""

FormPenalty = Annotated[
    float, Setting("taken off an attempt's reward where no answer is found in it", low=0, high=10)
]


def rewards_of(episode: Episode) -> list[float]:
    """The reward of every attempt, in order. Raises ValueError where there was none."""
    if not episode.verdicts:
        raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
    return [v.reward for v in episode.verdicts]


def less_form(episode: Episode, penalty: float) -> list[float]:
    """The rewards of the attempts, each less `penalty` where no answer was found in it."""
    rewards = rewards_of(episode)
    answers = notes_of(episode, ANSWERS) + [""] * len(rewards)  # of injected text no answer is noted
    return [r - penalty * (a is None) for r, a in zip(rewards, answers, strict=False)]


def scores(rewards: Sequence[float]) -> dict[str, float]:
    """`reward`, that of the last attempt, and `FIRST` and `SECOND`."""
    return {"reward": rewards[-1], **dict(zip((FIRST, SECOND), rewards, strict=False))}


# ---- stages ------------------------------------------------------------------------------------------


def each_attempt() -> Reward:
    """The `scores` of the attempts' own rewards."""
    return lambda episode: scores(rewards_of(episode))


def verdict_if_any() -> Reward:
    """The last verdict's reward; 1 for a text that was not checked."""
    return lambda episode: {"reward": episode.verdict.reward if episode.verdict else 1.0}
