"""How far a difference between two arms can be trusted: its variance over training seeds and over problems,
and how many more seeds would do.

An arm is a table X float[..., S, P]: accuracy of seed s on problem p. The model is
X[s, p] = arm + seed_s + problem_p + rest[s, p], seeds drawn per arm, problems shared by all arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from etude.types import Array


@dataclass(frozen=True)
class Contrast:
    """A difference of two means, a - b, with what its uncertainty consists of. Arrays have the tables'
    leading shape; units are those of the tables (shares, not points)."""

    effect: Array
    seeds: tuple[Array, ...]  # variance of the effect from the seeds of each arm that has seeds
    counts: tuple[int, ...]  # ... and how many seeds that are
    problems: Array  # variance of the effect from the problems
    size: int  # number of problems

    @property
    def error(self) -> Array:
        """The standard error."""
        return np.sqrt(sum(self.seeds, self.problems))

    @property
    def degrees(self) -> Array:
        """Degrees of freedom: Welch 1938 and Satterthwaite 1946 over the parts."""
        parts = [(self.problems, self.size - 1), *zip(self.seeds, [s - 1 for s in self.counts], strict=True)]
        total = sum(v for v, _ in parts)
        return np.asarray(total**2 / sum(v**2 / max(d, 1) for v, d in parts))

    def limits(self, level: float) -> tuple[Array, Array]:
        """The two-sided interval of the effect."""
        reach = self.error * stats.t.ppf((1 + level) / 2, self.degrees)
        return self.effect - reach, self.effect + reach

    @property
    def p(self) -> Array:
        """Two-sided p-value of "no difference"."""
        return 2 * stats.t.sf(np.abs(self.effect) / self.error, self.degrees)


def seed_parts(table: Array) -> tuple[Array, Array]:
    """(variance of the arm's mean from its seeds, the part of it that is within-problem noise), from
    X float[..., S, P] with S >= 2. The first is the variance of seed means / S; the second is the
    interaction mean square of a two-way layout / (S P)."""
    s, p = table.shape[-2:]
    rows = table.mean(-1, keepdims=True)
    columns = table.mean(-2, keepdims=True)
    rest = table - rows - columns + rows.mean(-2, keepdims=True)
    noise = (rest**2).sum((-2, -1)) / ((s - 1) * max(p - 1, 1))
    return rows[..., 0].var(-1, ddof=1) / s, noise / (s * p)


def floor(gaps: Array) -> Array:
    """The variance that even P equal problems leave, float64[...], from d float[..., P]: as if two more
    problems had differed, one each way, by the typical size of the differences seen (by 1 if none was).
    It keeps an interval from closing at 0 when no difference occurred among few problems."""
    seen = (gaps != 0).sum(-1)
    square = np.where(seen > 0, (gaps**2).sum(-1) / np.maximum(seen, 1), 1.0)
    return 2 * square / gaps.shape[-1] ** 2


def contrast(a: Array, b: Array, *, fixed: tuple[bool, bool] = (False, False)) -> Contrast:
    """The difference of two arms, a - b, on the same problems: a float[..., S_a, P], b float[..., S_b, P].

    Seeds: each arm's own variance of seed means over S (Welch: no equal variances are assumed, and seeds
    of two arms are taken as independent; where equal seeds make arms move together, intervals are too wide
    rather than too narrow). Problems: the variance of d_p = mean_s a - mean_s b over P, less the
    within-problem noise that the seed parts already contain. `fixed`: an arm without training randomness
    (the untrained model; one given checkpoint), whose rows are averaged and whose sampling noise is left in
    d_p. Raises ValueError where an arm that is not fixed has fewer than two seeds, or problems differ.
    """
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"arms on different problems: {a.shape[-1]} and {b.shape[-1]}")
    if a.shape[-1] < 2:
        raise ValueError("a comparison needs at least two problems")
    gaps = a.mean(-2) - b.mean(-2)
    problems = gaps.var(-1, ddof=1) / gaps.shape[-1]
    seeds, counts = [], []
    for table, frozen in ((a, fixed[0]), (b, fixed[1])):
        if frozen:
            continue
        if table.shape[-2] < 2:
            raise ValueError("the spread between seeds needs at least two seeds of each arm")
        spread, noise = seed_parts(table)
        problems = problems - noise
        seeds.append(spread)
        counts.append(table.shape[-2])
    problems = np.maximum(problems, 0) + floor(gaps)
    return Contrast(gaps.mean(-1), tuple(seeds), tuple(counts), problems, gaps.shape[-1])


def holm(p: object) -> Array:
    """Adjusted p-values float64[..., m] of m tests: comparing them with alpha keeps the chance of any false
    finding at alpha, however the tests depend on each other. Source: Holm 1979."""
    p = np.asarray(p, float)
    m = p.shape[-1]
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, -1) * (m - np.arange(m))
    stepped = np.minimum(np.maximum.accumulate(stepped, -1), 1.0)
    out = np.empty_like(p)
    np.put_along_axis(out, order, stepped, -1)
    return out


@dataclass(frozen=True)
class Need:
    """What would resolve a difference of the asked size: `seeds` more per arm (0: it would have been seen
    already), or, where the problems alone leave too much doubt, None and `problems` more of them."""

    seeds: int | None
    problems: int = 0


def needed(
    found: Contrast, target: float, *, level: float = 0.95, power: float = 0.8, most: int = 1000
) -> Need:
    """How many more seeds per arm would find a true difference of `target` (a share) with probability
    `power` by a two-sided t-test at 1 - level, if the variances are as estimated (from few seeds: a rough
    guide). More seeds shrink only the seeds' part. Leading shape of `found`: none."""
    if not target > 0:
        raise ValueError(f"target lies above 0; got {target}")
    have = max(found.counts, default=0)
    total = np.arange(max(have, 2), most + 1)
    each = [float(v) * n for v, n in zip(found.seeds, found.counts, strict=True)]  # variance with one seed
    problems = float(found.problems)
    parts = [(np.full(total.shape, problems), np.full(total.shape, found.size - 1.0))]
    parts += [(v / total, total - 1.0) for v in each]
    variance = np.sum([v for v, _ in parts], 0)
    degrees = variance**2 / np.sum([v**2 / d for v, d in parts], 0)
    reach = stats.t.ppf((1 + level) / 2, degrees)
    chance = stats.nct.sf(reach, degrees, target / np.sqrt(variance))
    enough = np.flatnonzero(chance >= power)
    if enough.size:
        return Need(int(total[enough[0]]) - have if each else 0)
    allowed = (target / (stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power))) ** 2
    share = 0.5 if each else 1.0  # half of the doubt is left to the seeds
    return Need(None, max(1, int(np.ceil(found.size * problems / (share * allowed))) - found.size))
