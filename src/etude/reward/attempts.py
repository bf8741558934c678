"""Rewards of episodes with several attempts, and how one attempt's reward may look at another's."""

from __future__ import annotations

from etude.rollout.attempts import notes_of
from etude.types import Episode


def each_attempt():
    """`first` and, where there was one, `second`: the rewards of the attempts. `reward` is that of the last."""

    def reward(episode: Episode) -> dict[str, float]:
        rewards = rewards_of(episode)
        names = ("first", "second")
        return {"reward": rewards[-1], **dict(zip(names, rewards, strict=False))}

    return reward


def rewards_of(episode: Episode) -> list[float]:
    """The reward of every attempt, in order. Raises ValueError where there was none."""
    if not episode.verdicts:
        raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
    return [v.reward for v in episode.verdicts]


def less_form(episode: Episode, penalty: float) -> list[float]:
    """The rewards of the attempts, each less `penalty` where no answer was found in it."""
    rewards = rewards_of(episode)
    answers = notes_of(episode, "answers") + [""] * len(rewards)  # what was overheard is not read
    return [r - penalty * (a is None) for r, a in zip(rewards, answers, strict=False)]
