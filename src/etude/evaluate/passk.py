"""pass@k, mean@k and majority@k from more samples than k, without bias and without drawing.

Each is the exact expectation over the choice of k of a problem's n samples, without replacement: a number
per problem, whose mean over problems `intervals.clustered` then gives an interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import comb

import numpy as np

from etude.types import Array


def _counts(correct: object, samples: object) -> tuple[Array, Array]:
    """Both as int64, broadcast together. Raises ValueError unless 0 <= correct <= samples and samples >= 1."""
    c, n = np.broadcast_arrays(np.asarray(correct), np.asarray(samples))
    if not (np.all(c == np.floor(c)) and np.all(n == np.floor(n))):
        raise ValueError("correct and samples are counts: whole numbers")
    if np.any(n < 1) or np.any(c < 0) or np.any(c > n):
        raise ValueError("counts must satisfy 0 <= correct <= samples and samples >= 1")
    return c.astype(np.int64), n.astype(np.int64)


def pass_at(k: int, correct: object, samples: object) -> Array:
    """The probability that k of a problem's samples contain a correct one: 1 - C(n-c, k) / C(n, k).

    `correct` c int[P] and `samples` n int[P] (or one number for all); returns float64[P] in [0, 1].
    Computed as 1 - prod_{j<k} (1 - c / (n - j)) in logarithms, so that it is exact to rounding also where
    the binomials overflow or the probability is tiny. Raises ValueError where k is not in 1..min(n).
    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.
    """
    c, n = _counts(correct, samples)
    if not 1 <= k <= n.min(initial=np.iinfo(np.int64).max):
        raise ValueError(
            f"pass@{k} needs k between 1 and the samples of every problem; the fewest are {n.min()}"
        )
    left = n[..., None] - np.arange(k)  # [P, k]: samples not yet drawn
    with np.errstate(divide="ignore"):  # log 0: no wrong sample is left, so a correct one is drawn
        miss = np.log1p(-np.minimum(c[..., None] / left, 1.0)).sum(-1)
    return -np.expm1(miss)


def majority_at(k: int, answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """The probability that the most frequent answer among k of one problem's n samples is correct.

    `answers`: what each sample answered, compared by equality; None is a sample without an answer, which
    casts no vote. `correct`: each sample's verdict; where equal answers got different verdicts, the answer
    counts by its share of passes. Ties are split evenly among the leaders; k draws without any answer win
    nothing. The expectation is exact: for each answer i and number of votes v, the ways in which i has v
    votes and t others tie with it (the rest having fewer) are coefficients of a product of polynomials,
    divided by C(n, k) (t + 1). Cost about O(n k^2) for n samples. Raises ValueError where k is not in 1..n.
    Source of majority voting: Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning".
    """
    n = len(answers)
    if len(correct) != n:
        raise ValueError(f"{n} answers but {len(correct)} verdicts")
    if not 1 <= k <= n:
        raise ValueError(f"majority@{k} needs k between 1 and the {n} samples")
    votes: dict[Hashable, int] = {}
    passes: dict[Hashable, int] = {}
    for answer, ok in zip(answers, correct, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            passes[answer] = passes.get(answer, 0) + bool(ok)
    sizes = np.array(list(votes.values()), np.int64)
    share = [passes[a] / votes[a] for a in votes]
    silent = n - int(sizes.sum())
    won: dict[int, float] = {}  # probability that a given answer of this size wins; equal sizes are alike
    total = 0.0
    for i, size in enumerate(sizes):
        if share[i] == 0:
            continue
        if int(size) not in won:
            won[int(size)] = _wins(int(size), np.delete(sizes, i), silent, n, k)
        total += share[i] * won[int(size)]
    return min(1.0, total)


def _wins(size: int, others: Array, silent: int, n: int, k: int) -> float:
    """The probability that one answer with `size` votes leads among k draws, ties shared."""
    total = 0.0
    for v in range(1, min(size, k) + 1):
        ways = np.zeros((k + 1, k // v + 1))  # [samples drawn, answers that tie]
        drawn = [comb(silent, u) for u in range(min(silent, k - v) + 1)]
        ways[v : v + len(drawn), 0] = comb(size, v) * np.array(drawn, float)
        for other in others:
            step = np.zeros_like(ways)
            for u in range(min(v - 1, int(other)) + 1):
                step[u:] += comb(int(other), u) * ways[: k + 1 - u]
            if other >= v:
                step[v:, 1:] += comb(int(other), v) * ways[: k + 1 - v, :-1]
            ways = step
        total += float(np.sum(ways[k] / np.arange(1, ways.shape[1] + 1)))
    return total / comb(n, k)
