"""Simulated evaluations and experiments whose truth is known, and the usual ways to judge them.

Arms are drawn as logit p[s, p] = base + problem_p + arm_problem_p + seed_s + rest[s, p] and graded on k
binomial samples; the truth is the mean over all problems and seeds, by quadrature. Next to each method of
`etude.evaluate` stand the usual shortcuts. Used by `trust.py` and by tests/test_evaluate_trust.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from etude.compare.paired import probability_best
from etude.compare.variance import contrast, holm
from etude.evaluate.intervals import limits
from etude.seeds import generator

Array = np.ndarray
Bounds = tuple[Array, Array]
Single = Callable[[Array, int], Bounds]  # values [R, P], samples per problem -> low, high
Paired = Callable[[Array, Array], Bounds]  # a, b [R, S, P] -> low, high


# ---- single intervals ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regime:
    """One evaluation: `clump` is the correlation of two samples of one problem (1: all or nothing)."""

    problems: int
    samples: int
    mean: float
    clump: float


SINGLE = tuple(
    Regime(n, k, m, c)
    for n, k, m in itertools.product(
        (30, 100, 300), (1, 4, 16), (0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.98)
    )
    for c in ((0.0,) if k == 1 else (0.0, 0.1, 0.4, 0.8, 1.0))
)


def graded(r: Regime, repeats: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Shares of correct samples [R, P] and the true mean [R], jittered by up to 0.3 in the logit so that
    coverage is averaged over the grid that counts lie on."""
    mean = special.expit(special.logit(r.mean) + rng.uniform(-0.3, 0.3, repeats))
    shape = (repeats, r.problems)
    if r.clump == 0:
        p = np.repeat(mean[:, None], r.problems, 1)
    elif r.clump == 1:
        p = (rng.random(shape) < mean[:, None]).astype(float)
    else:
        size = 1 / r.clump - 1
        p = rng.beta(mean[:, None] * size, (1 - mean[:, None]) * size, shape)
    return rng.binomial(r.samples, p) / r.samples, mean


def ours(x: Array, k: int) -> Bounds:
    return limits(x, k * x.shape[-1])[1:]


def pooled_normal(x: Array, k: int) -> Bounds:
    """Wrong: all samples as if independent."""
    m, n = x.mean(-1), k * x.shape[-1]
    reach = 1.96 * np.sqrt(m * (1 - m) / n)
    return m - reach, m + reach


def pooled_wilson(x: Array, k: int) -> Bounds:
    """Wrong: better at the ends, all samples as if independent."""
    m, n, z = x.mean(-1), k * x.shape[-1], 1.96
    middle = (m + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(m * (1 - m) / n + z * z / (4 * n * n))
    return middle - reach, middle + reach


def problem_t(x: Array, k: int) -> Bounds:
    """Right in the middle, wrong at the ends: Student's t over problem means."""
    n = x.shape[-1]
    reach = stats.t.ppf(0.975, n - 1) * x.std(-1, ddof=1) / np.sqrt(n)
    return x.mean(-1) - reach, x.mean(-1) + reach


SINGLE_METHODS: dict[str, Single] = {
    "etude": ours,
    "pooled normal": pooled_normal,
    "pooled Wilson": pooled_wilson,
    "t over problems": problem_t,
}


def single_coverage(method: Single, regimes: Iterable[Regime], repeats: int) -> dict[Regime, float]:
    """The share of intervals that contain the truth, per regime."""
    out = {}
    for r in regimes:
        x, mean = graded(r, repeats, generator("trust", "single", repr(r)))
        low, high = method(x, r.samples)
        out[r] = float(np.mean((low <= mean) & (mean <= high)))
    return out


# ---- arms ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arms:
    """An experiment; standard deviations are in logits (0.15 is about 2.5 points, 0.25 about 4)."""

    seeds: int = 3
    problems: int = 100
    samples: int = 4
    spread: float = 0.2  # between seeds
    effects: tuple[float, ...] = (0.0, 0.0)  # each arm's shift
    taste: float = 0.0  # each arm's own strengths, per problem
    rest: float = 0.3  # per seed and problem
    shared: float = 0.0  # correlation of equal seeds across arms
    uneven: bool = False  # the first arm has almost no spread between seeds
    hard: float = 1.5  # between problems
    base: float = -0.4

    def spreads(self) -> Array:
        many = np.full(len(self.effects), self.spread)
        if self.uneven:
            many[0] = 0.02
        return many


def draw(e: Arms, repeats: int, rng: np.random.Generator) -> Array:
    """Accuracies [R, A, S, P]."""
    a = len(e.effects)
    z = e.base + e.hard * rng.standard_normal((repeats, 1, 1, e.problems))
    z = z + e.taste * rng.standard_normal((repeats, a, 1, e.problems))
    z = z + e.rest * rng.standard_normal((repeats, a, e.seeds, e.problems))
    common, own = rng.standard_normal((repeats, 1, e.seeds, 1)), rng.standard_normal((repeats, a, e.seeds, 1))
    seed = np.sqrt(e.shared) * common + np.sqrt(1 - e.shared) * own
    z = z + seed * e.spreads()[:, None, None] + np.array(e.effects)[:, None, None]
    return rng.binomial(e.samples, special.expit(z)) / e.samples


def truth(e: Arms) -> Array:
    """Each arm's accuracy over all problems and seeds [A], by Gauss-Hermite quadrature."""
    x, w = np.polynomial.hermite_e.hermegauss(101)
    width = np.sqrt(e.hard**2 + e.taste**2 + e.rest**2 + e.spreads() ** 2)
    return special.expit(e.base + np.array(e.effects)[:, None] + width[:, None] * x) @ (w / w.sum())


def welch(a: Array, b: Array) -> Bounds:
    """The library's interval."""
    return contrast(a, b).limits(0.95)


def over_problems(a: Array, b: Array) -> Bounds:
    """Wrong: seeds averaged, then a paired t over problems (what comparing checkpoints amounts to)."""
    return contrast(a, b, fixed=(True, True)).limits(0.95)


def over_seeds(a: Array, b: Array) -> Bounds:
    """Wrong for other problems: a paired t over seed means."""
    d = (a - b).mean(-1)
    reach = stats.t.ppf(0.975, d.shape[-1] - 1) * d.std(-1, ddof=1) / np.sqrt(d.shape[-1])
    return d.mean(-1) - reach, d.mean(-1) + reach


def pooled(a: Array, b: Array) -> Bounds:
    """Wrong: every cell of the table as if independent."""
    n = a.shape[-1] * a.shape[-2]
    d = a.mean((-2, -1)) - b.mean((-2, -1))
    reach = 1.96 * np.sqrt((a.var((-2, -1), ddof=1) + b.var((-2, -1), ddof=1)) / n)
    return d - reach, d + reach


def bootstrap(a: Array, b: Array, draws: int = 300) -> Bounds:
    """The plain hierarchical bootstrap, percentile interval: equal seeds and problems resampled together."""
    rng = generator("trust", "bootstrap")
    d = a - b
    s, p = d.shape[-2:]
    seeds = rng.multinomial(s, [1 / s] * s, (len(d), draws)) / s
    problems = rng.multinomial(p, [1 / p] * p, draws) / p
    means = np.einsum("rsb,rbs->rb", np.einsum("rsp,bp->rsb", d, problems, optimize=True), seeds)
    low, high = np.quantile(means, (0.025, 0.975), axis=1)
    return low, high


PAIRED_METHODS: dict[str, Paired] = {
    "etude": welch,
    "hierarchical bootstrap": bootstrap,
    "t over seeds": over_seeds,
    "t over problems": over_problems,
    "pooled normal": pooled,
}


def experiments(seeds: Iterable[int] = (2, 3, 4, 5, 8)) -> list[Arms]:
    """The grid: 3 sizes x 3 spreads x own strengths or none x uneven spreads or not."""
    sizes = ((50, 1), (100, 4), (200, 8))
    grid = itertools.product(seeds, sizes, (0.0, 0.15, 0.25), (0.0, 0.8), (False, True))
    return [
        Arms(s, n, k, spread, (0.3, 0.0), taste, uneven=uneven)
        for s, (n, k), spread, taste, uneven in grid
        if spread or not uneven
    ]


def paired_coverage(method: Paired, grid: Iterable[Arms], repeats: int) -> dict[Arms, tuple[float, float]]:
    """(coverage, mean half width in points) of the interval of arm 0 minus arm 1."""
    out = {}
    for e in grid:
        x = draw(e, repeats, generator("trust", "paired", repr(e)))
        true = truth(e)
        low, high = method(x[:, 0], x[:, 1])
        held = (low <= true[0] - true[1]) & (true[0] - true[1] <= high)
        out[e] = float(held.mean()), float(50 * np.mean(high - low))
    return out


def rejected(method: Paired, e: Arms, repeats: int) -> float:
    """How often arm 0 is called different from arm 1: false positives without, power with an effect."""
    x = draw(e, repeats, generator("trust", "rejected", repr(e)))
    low, high = method(x[:, 0], x[:, 1])
    return float(np.mean((low > 0) | (high < 0)))


def family_error(e: Arms, repeats: int, *, corrected: bool = True) -> float:
    """How often any of the equal arms is called different from the first."""
    x = draw(e, repeats, generator("trust", "family", repr(e)))
    p = np.stack([contrast(x[:, i], x[:, 0]).p for i in range(1, x.shape[1])], -1)
    return float(np.mean(((holm(p) if corrected else p) <= 0.05).any(-1)))


def best_calibration(repeats: int, spread: float = 0.2, effect: float = 0.2) -> list[dict[str, float]]:
    """Of the arms said to be best with probability about q, how many are: five arms, three seeds, true
    shifts drawn with standard deviation `effect` (logits)."""
    rng = generator("trust", "best", repr((spread, effect)))
    said, was = [], []
    for i in range(repeats):
        e = Arms(effects=tuple(rng.normal(0, effect, 5)), spread=spread)
        x = draw(e, 1, generator("trust", "best", i))[0]
        q = probability_best({str(j): t for j, t in enumerate(x)}, draws=1000, key=("trust", i))
        said += list(q.values())
        was += [j == int(np.argmax(e.effects)) for j in range(5)]
    edges = np.array([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0001])
    which = np.digitize(said, edges)
    rows = [(np.array(said)[which == b], np.array(was)[which == b]) for b in range(1, len(edges))]
    return [{"said": float(s.mean()), "was": float(w.mean()), "count": len(s)} for s, w in rows if len(s)]
