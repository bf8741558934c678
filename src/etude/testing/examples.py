"""Groups made by hand, for the numbers that methods work out in their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.types import Episode, Group, Span, Task, Verdict


def nobody(answer: str) -> Verdict:
    raise AssertionError("the answers of an example are judged already")


EXAMPLE_TASK = Task((), nobody)


def example_episode(
    reward: float, tokens: Sequence[int] = (1,), index: int = 0, stop: str = "end"
) -> Episode:
    """An attempt of `tokens` at a limit of six; log-probability -1 a token; right where the reward is positive."""
    words = Span("assistant", np.array(tokens, np.int32), True, -np.ones(len(tokens), np.float32))
    verdict = Verdict(min(1.0, max(0.0, reward)), reward > 0)
    return Episode(
        EXAMPLE_TASK,
        (words,),
        index=index,
        verdicts=(verdict,),
        scores={"reward": reward},
        stop=stop,
        notes={"limit": 6},
    )


def example_group(rewards: Sequence[float], lengths: Sequence[int] | None = None) -> Group:
    """Attempts with these rewards and lengths (default: one token each)."""
    sizes = lengths or [1] * len(rewards)
    made = (
        example_episode(r, range(1, n + 1), i) for i, (r, n) in enumerate(zip(rewards, sizes, strict=True))
    )
    return Group(EXAMPLE_TASK, tuple(made))


def example_advantages(credit: Any, *rewards: Sequence[float]) -> list[float]:
    """The advantage of each attempt, of groups with these rewards."""
    return [float(s.advantage[0]) for s in credit([example_group(r) for r in rewards], None)]
