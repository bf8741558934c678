"""Rewards of episodes with several attempts, and how one attempt's reward may look at another's."""

from __future__ import annotations

from typing import Annotated

from etude.rollout.attempts import notes_of
from etude.settings import Setting
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


def formatted(
    form: Annotated[float, Setting("taken off where no answer is found", low=0, high=1)] = 0.1,
):
    """The reward of each attempt (`first`, `second`), less `form` where no answer was found. `reward`: the last
    (RLTF, arXiv 2602.02482)."""

    def reward(episode: Episode) -> dict[str, float]:
        rewards = less_form(episode, form)
        return {"reward": rewards[-1], **dict(zip(("first", "second"), rewards, strict=False))}

    return reward


def verdict_if_any():
    """The last verdict's reward; 1 for a text that nobody judged."""
    return lambda episode: {"reward": episode.verdict.reward if episode.verdict else 1.0}


def gain(new: float, old: float) -> float:
    """max(0, new - old) / (1 - old): the share that was gained of what could be; 0 where nothing could be."""
    return max(0.0, new - old) / (1 - old) if old < 1 else 0.0


def improvement():
    """The quality of a first answer, its last verdict's reward; of an answer that goes on from an earlier one, what
    it gained (ExIt, arXiv 2509.04575)."""

    def reward(episode: Episode) -> dict[str, float]:
        old, new = episode.task.meta.get("quality"), rewards_of(episode)[-1]
        return {"reward": new if old is None else gain(new, old), "quality": new}

    return reward


def progress_bonus(first: float, second: float, alpha: float) -> float:
    """r2 + alpha (r2 - r1): a second attempt is worth more where it mends, less where it spoils (SCoRe)."""
    return second + alpha * (second - first)


def decayed(turn: int, decay: float) -> float:
    """decay^turn for success at `turn`, counted from 0 (UFO)."""
    return decay**turn


def repeated(answers: list[str | None]) -> float:
    """1 - E/N: the share of the N answers found that had been given before; 0 where none was found."""
    valid = [a for a in answers if a is not None]
    return 1 - len(set(valid)) / len(valid) if valid else 0.0


def turn_decay(
    decay: Annotated[float, Setting("factor for every turn that success came later", low=0, high=1)] = 0.5,
    repeat: Annotated[float, Setting("punishment of repeated answers, at most", low=0, high=10)] = 0.5,
    malformed: Annotated[
        float, Setting("punishment where the last reply holds no answer", low=0, high=10)
    ] = 0.1,
):
    """decay^t for an answer that is right at turn t, minus repeat x (1 - E/N) for E different among N answers,
    minus `malformed` (UFO, arXiv 2507.14295)."""

    def reward(episode: Episode) -> dict[str, float]:
        rewards, answers = rewards_of(episode), notes_of(episode, "answers")
        won = rewards[-1] * decayed(len(rewards) - 1, decay)
        loops = repeat * repeated(answers)
        form = malformed if answers and answers[-1] is None else 0.0
        return {"reward": won - loops - form, "won": won, "repeated": -loops, "first": rewards[0]}

    return reward
