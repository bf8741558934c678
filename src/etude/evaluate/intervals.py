"""Confidence intervals for a mean over problems, where the samples of one problem are not independent.

The method was chosen by simulation (`bench/trust.py`): over 30-300 problems, 1-16 samples, means from
0.003 to 0.98 and every degree of clustering, a 95 % interval covers 93 % or more everywhere; 93-97 % in 19 of
20 regimes where five or more problems' worth of the rarer outcome are expected, and up to 100 % nearer to 0
and 1, where counts are too few to be exact. The normal interval over pooled samples falls to 0 %, Student's
t over problem means to 9 %, and neither has any width at 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etude.types import Array

METHOD = "beta, clustered by problem"


@dataclass(frozen=True)
class Interval:
    """A mean in [0, 1] and where its value over all such problems lies with confidence `level`."""

    mean: float
    low: float
    high: float
    level: float
    problems: int
    samples: int  # verdicts behind it, over all problems
    method: str = METHOD

    def __str__(self) -> str:
        return (
            f"{100 * self.mean:.1f} % ({100 * self.level:g} % interval {100 * self.low:.1f} to"
            f" {100 * self.high:.1f}; {self.problems} problems, {self.samples} samples)"
        )


def clustered(
    values: object, samples: object = 1, *, weights: object | None = None, level: float = 0.95
) -> Interval:
    """The interval of the mean of `values` float[P] in [0, 1], one per problem (its share of correct
    samples, its pass@k), for problems drawn from a population.

    `samples` int or int[P]: the samples behind each value. `weights` float[P] > 0: each problem's weight in
    the mean (default: equal). Raises ValueError on an empty, non-finite or out-of-range input.
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or not x.size:
        raise ValueError("an interval needs the values of at least one problem")
    n = np.broadcast_to(np.asarray(samples), x.shape)
    if np.any(n < 1):
        raise ValueError("every problem needs at least one sample")
    mean, low, high = limits(x, int(n.sum()), weights=weights, level=level)
    return Interval(float(mean), float(low), float(high), level, x.size, int(n.sum()))


def limits(
    values: Array, samples: int, *, weights: object | None = None, level: float = 0.95
) -> tuple[Array, Array, Array]:
    """mean, low, high, each float64[...], for `values` float[..., P]; `samples`: verdicts over all P.

    A Jeffreys interval at an effective sample size: with m the mean and v the clustered variance of it,
    n* = m (1 - m) / v, at most `samples`. Where only j problems differ from the floor (or the ceiling), v
    says little about how passes clump, so 1/n* is mixed with its worst case 1/P, each problem all or
    nothing: weights j/(j+1) and 1/(j+1). Student's t with P - 1 degrees (Kish's P where weighted) instead
    of the normal shrinks n* by (z/t)^2. At mean 0 (1) the lower (upper) limit is 0 (1) and the other one is not.
    Sources: Korn & Graubard 1998 (effective size and t), Brown, Cai & DasGupta 2001 (Jeffreys); the mixing
    is ours.
    """
    from scipy import special  # scipy.stats would take half a second to import

    x = np.asarray(values, float)
    w = np.ones(x.shape[-1]) if weights is None else np.asarray(weights, float)
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies in (0, 1); got {level}")
    if not np.all((x >= 0) & (x <= 1)):
        raise ValueError("values lie in [0, 1]")
    if w.shape != x.shape[-1:] or not np.all(np.isfinite(w) & (w > 0)):
        raise ValueError("weights are one positive number per problem")
    w = w / w.sum()
    size = 1 / np.sum(w**2)  # Kish's number of problems; P when equally weighted
    degrees = max(size - 1, 1)
    mean = np.where((x == 1).all(-1), 1.0, np.minimum(x @ w, 1.0))  # weights add up to 1 only nearly
    v = ((x - mean[..., None]) ** 2) @ w**2 * (degrees + 1) / degrees
    chance = mean * (1 - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(chance > 0, v / chance, 1 / size)
    inverse = np.maximum(inverse, 1 / max(samples, size))
    telling = np.minimum((x > 0).sum(-1), (x < 1).sum(-1))
    inverse = (telling * inverse + 1 / size) / (telling + 1)
    tail = (1 - level) / 2
    n = (special.ndtri(tail) / special.stdtrit(degrees, tail)) ** 2 / inverse
    a, b = n * mean + 0.5, n * (1 - mean) + 0.5
    low = np.where(mean <= 0, 0.0, np.minimum(special.betaincinv(a, b, tail), mean))
    high = np.where(mean >= 1, 1.0, np.maximum(special.betainccinv(a, b, tail), mean))
    return mean, low, high
