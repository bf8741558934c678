"""Groups made by hand, for the numbers that recipes work out in their examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etude.credit.group import Credit
from etude.rollout.attempts import nth
from etude.types import Episode, Group, Span, Task, Verdict


def nobody(answer: str) -> Verdict:
    raise AssertionError("the answers of an example are judged already")


TASK = Task((), nobody)


def attempt(reward: float, tokens: Sequence[int] = (1,), index: int = 0, stop: str = "end") -> Episode:
    """An attempt of `tokens` at a limit of six; log-probability -1 a token; right where the reward is positive."""
    words = Span("assistant", np.array(tokens, np.int32), True, -np.ones(len(tokens), np.float32))
    verdict = Verdict(min(1.0, max(0.0, reward)), reward > 0)
    return Episode(
        TASK,
        (words,),
        index=index,
        verdicts=(verdict,),
        scores={"reward": reward},
        stop=stop,
        notes={"limit": 6},
    )


def group(rewards: Sequence[float], lengths: Sequence[int] | None = None) -> Group:
    """Attempts with these rewards and lengths (default: one token each)."""
    sizes = lengths or [1] * len(rewards)
    made = (attempt(r, range(1, n + 1), i) for i, (r, n) in enumerate(zip(rewards, sizes, strict=True)))
    return Group(TASK, tuple(made))


def tried(*attempts: tuple[Sequence[int], bool]) -> Episode:
    """Attempts of these tokens, each right or wrong. The prompt is (1, 2); later attempts begin afresh after it, and
    without their help it would have been (1,)."""
    spans: list[Span] = []
    for number, (tokens, _) in enumerate(attempts, 1):
        words = Span("assistant", np.array(tokens), True, np.zeros(len(tokens)), tag=nth(number))
        spans += [Span("user", np.array([1, 2]), tag="prompt", restart=number > 1), words]
    plain = {nth(number): [1] for number in range(2, len(attempts) + 1)}
    verdicts = tuple(Verdict(float(right), right) for _, right in attempts)
    return Episode(TASK, tuple(spans), verdicts=verdicts, notes={"plain": plain})


def credited(credit: Credit, *rewards: Sequence[float]) -> list[float]:
    """The advantage of each attempt, of groups with these rewards."""
    return [float(s.advantage[0]) for s in credit([group(r) for r in rewards], None)]
