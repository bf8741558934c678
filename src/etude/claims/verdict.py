"""What a difference between two arms is called. Pure functions of numbers.

An arm is a table float[S, P]: seed x problem, or float[S] where a seed gives one number. Seeds and problems are the
same in both arms, and differences are taken within a seed and a problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from etude.compare.variance import contrast
from etude.types import Array

LEVEL, POWER = 0.95, 0.8
HELD, BELOW, NOT_HELD, REVERSED, OPEN, NO_TEST = LABELS = (
    "held",
    "below the smallest effect",
    "not held",
    "reversed",
    "not resolved",
    "no test",
)
MEANING: Mapping[str, str] = {
    HELD: "the 95 % interval lies on the claimed side of zero, and the effect is at least the smallest that was asked for",
    BELOW: "the interval lies on the claimed side of zero, and below the smallest effect that was asked for",
    NOT_HELD: "the interval lies below the smallest effect that was asked for, and includes zero or small effects the other way",
    REVERSED: "the interval lies on the other side of zero, and the effect there is at least as large as was asked for",
    OPEN: "the interval excludes neither, with all the seeds that were fixed beforehand",
    NO_TEST: "a gate failed: the run could not have shown the effect, or would have shown another",
}


@dataclass(frozen=True)
class Difference:
    """arm - base with its 95 % interval. `visible`: the smallest true difference that would have been found with a
    probability of 80 %."""

    effect: float
    low: float
    high: float
    visible: float

    def scaled(self, factor: float) -> Difference:
        low, high = sorted((factor * self.low, factor * self.high))
        return Difference(factor * self.effect, low, high, abs(factor) * self.visible)

    def to_dict(self) -> dict[str, float]:
        return {"effect": self.effect, "low": self.low, "high": self.high, "visible": self.visible}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Difference:
        return cls(*(float(found[name]) for name in ("effect", "low", "high", "visible")))


def paired(arm: Array, base: Array) -> Difference:
    """Of tables [S, P]: Student's t over the seeds' differences and over the problems' (`compare.variance`). Of [S]:
    Student's t over the seeds' differences. Raises ValueError for tables of different shape and a single seed."""
    if arm.shape != base.shape or len(arm) < 2:
        raise ValueError(f"paired tables need one shape and two seeds; got {arm.shape} and {base.shape}")
    gaps = arm - base
    if gaps.ndim == 1:
        error, degrees = float(gaps.std(ddof=1)) / len(gaps) ** 0.5, float(len(gaps) - 1)
        effect = float(gaps.mean())
    else:
        found = contrast(gaps, np.zeros((1, gaps.shape[1])), fixed=(False, True))
        error, degrees, effect = float(found.error), float(found.degrees), float(found.effect)
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    return Difference(
        effect, effect - reach, effect + reach, reach + error * float(stats.t.ppf(POWER, degrees))
    )


def label(found: Difference, least: float, better: str = "higher") -> str:
    """The name of a difference (`MEANING`); `least`: the smallest effect that counts, above 0."""
    claimed = found.scaled(1 if better == "higher" else -1)
    if claimed.low > 0 and claimed.effect >= least:
        return HELD
    if claimed.high < 0 and claimed.effect <= -least:
        return REVERSED
    if claimed.high < least:
        return BELOW if claimed.low > 0 else NOT_HELD
    return OPEN


def guarded(said: str, guard: Difference, margin: float) -> str:
    """`said`, where the guarded metric may not be lower by `margin`: a claim whose guard is broken is not held, one
    whose guard is in doubt is not resolved."""
    if said != HELD or guard.low >= -margin:
        return said
    return NOT_HELD if guard.high < -margin else OPEN
