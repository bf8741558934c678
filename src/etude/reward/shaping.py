"""Rewards made of a verdict and the shape of the answer."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from etude.rollout.table import verdict
from etude.settings import Setting
from etude.types import Array, Episode


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
        correct, limit = verdict()(episode)["reward"], episode.notes["limit"]
        longest = max((len(s) for s in episode.spans if s.sampled), default=0)
        over = overlong_share(longest, limit, max(1, round(buffer * limit)))
        return {"reward": correct - penalty * over, "verdict": correct, "overlong": -penalty * over}

    return reward


def partial_verdict(
    partial: Annotated[float, Setting("reward of a wrong answer that came to its end", low=0, high=1)] = 0.1,
):
    """The verdict's reward, at least `partial` where the answer was not cut off by the length limit
    (ReFT, arXiv 2401.08967)."""

    def reward(episode: Episode) -> dict[str, float]:
        right = verdict()(episode)["reward"]
        return {"reward": max(right, partial if episode.stop == "end" else 0.0), "verdict": right}

    return reward


def triangle(thought: int, budget: int) -> float:
    """Rises to 1 at the budget, falls to 0 at twice the budget."""
    return max(0.0, 1 - abs(thought / budget - 1))


def budgeted(
    share: Annotated[float, Setting("share of the length reward", low=0, high=1)] = 0.2,
    most: Annotated[float, Setting("length reward at the budget", low=0)] = 1.0,
):
    """(1 - w) [the token was right] + w r_max triangle(thought) (RMT, arXiv 2509.24375)."""

    def reward(episode: Episode) -> dict[str, float]:
        right = float(episode.correct)
        length = most * triangle(episode.notes["thought"], episode.notes["budget"])
        return {
            "reward": (1 - share) * right + share * length,
            "match": right,
            "thought": episode.notes["thought"],
        }

    return reward


def paid_within(
    length: Annotated[int, Setting("longest answer that is paid; 0: all that ended", "tokens", low=0)] = 0,
):
    """R' = R for an answer of at most `length` sampled tokens, else 0 (DLER, arXiv 2510.15110)."""

    def reward(episode: Episode) -> dict[str, float]:
        long = episode.sampled.sum() > length if length else episode.stop == "length"
        right = verdict()(episode)["reward"]
        return {"reward": 0.0 if long else right, "verdict": right, "too_long": float(long)}

    return reward


def repeats(tokens: Array, size: int) -> int:
    """How often the commonest run of `size` tokens occurs."""
    runs = Counter(tuple(tokens[i : i + size].tolist()) for i in range(len(tokens) - size + 1))
    return max(runs.values(), default=0)


def tidy(
    penalty: Annotated[float, Setting("punishment of repetition and of overlong answers", low=0)] = 1.0,
    size: Annotated[int, Setting("length of a run that counts as repeated", "tokens", low=1)] = 8,
    most: Annotated[int, Setting("times that a run may occur", low=1)] = 3,
):
    """The verdict's reward, minus the penalty for an answer that was cut off or repeats itself
    (T1, arXiv 2501.11651)."""

    def reward(episode: Episode) -> dict[str, float]:
        untidy = episode.stop == "length" or repeats(episode.tokens[episode.sampled], size) > most
        right = verdict()(episode)["reward"]
        return {"reward": right - penalty * untidy, "verdict": right, "untidy": float(untidy)}

    return reward
