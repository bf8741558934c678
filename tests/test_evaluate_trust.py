"""The statistics keep what they promise in simulated experiments, and the usual shortcuts do not.

A few seconds of `bench/trust.py`, whose full run is recorded in bench/results/trust.json.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import trust_draws as draws

from etude.compare.variance import contrast
from etude.evaluate.intervals import limits
from etude.seeds import generator

SOME = [
    draws.Regime(n, k, m, 0.4 * (k > 1)) for n in (30, 200) for k in (1, 8) for m in (0.02, 0.2, 0.5, 0.9)
]
SOME += [draws.Regime(100, 16, 0.01, 0.4), draws.Regime(300, 16, 0.997, 0.4)]  # a few problems tell all
SEEDS = [
    draws.Arms(s, n, k, spread, (0.3, 0.0), taste)
    for s, n, k in ((3, 200, 8), (5, 50, 1))
    for spread in (0.0, 0.25)
    for taste in (0.0, 0.8)
]
REPEATS = 1000


def sound(coverage, lowest=0.915, mean=(0.94, 0.975)):
    """Nowhere far below 95 % (1000 repeats: standard error 0.7 %), and neither narrow nor wide on average."""
    c = np.array(list(coverage))
    return bool(c.min() >= lowest and mean[0] <= c.mean() <= mean[1])


def single(method):
    return sound(draws.single_coverage(method, SOME, REPEATS).values())


@cache
def experiment(e):
    return draws.draw(e, REPEATS, generator("test", "trust", repr(e))), draws.truth(e)


def differences(method, repeats=REPEATS):
    found = []
    for x, true in map(experiment, SEEDS):
        low, high = method(x[:repeats, 0], x[:repeats, 1])
        found.append(np.mean((low <= true[0] - true[1]) & (true[0] - true[1] <= high)))
    return sound(found, mean=(0.935, 0.97))


def test_single_intervals_cover():
    assert single(draws.ours)


@pytest.mark.parametrize("name", [n for n in draws.SINGLE_METHODS if n != "etude"])
def test_wrong_single_intervals_fail(name):
    assert not single(draws.SINGLE_METHODS[name])


@pytest.mark.parametrize("level", [0.90, 0.99])
def test_single_intervals_of_another_level_fail(level):
    assert not single(lambda x, k: limits(x, k * x.shape[-1], level=level)[1:])


def test_differences_between_arms_cover():
    assert differences(draws.welch)


@pytest.mark.parametrize("name", [n for n in draws.PAIRED_METHODS if n != "etude"])
def test_wrong_differences_fail(name):
    assert not differences(draws.PAIRED_METHODS[name], 300 if name == "hierarchical bootstrap" else REPEATS)


@pytest.mark.parametrize("level", [0.90, 0.99])
def test_differences_of_another_level_fail(level):
    assert not differences(lambda a, b: contrast(a, b).limits(level))


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_same_recipe_twice_is_rarely_called_different(seeds):
    e = draws.Arms(seeds, spread=0.2)
    assert draws.rejected(draws.welch, e, 2000) <= 0.055
    assert draws.rejected(draws.over_problems, e, 2000) > 0.15  # comparing checkpoints instead of methods


def test_any_of_four_equal_arms_is_rarely_called_different():
    e = draws.Arms(3, spread=0.2, effects=(0.0,) * 5)
    assert draws.family_error(e, 1500) <= 0.06
    assert draws.family_error(e, 1500, corrected=False) > 0.08


def test_a_planted_effect_is_found():
    e = draws.Arms(5, 200, spread=0.15, effects=(0.6, 0.0), taste=0.3)
    assert draws.rejected(draws.welch, e, 500) > 0.9


def test_probability_of_being_best_is_calibrated_and_not_bold():
    for row in draws.best_calibration(250):
        if row["count"] >= 40:
            slack = 3 * np.sqrt(row["said"] * (1 - row["said"]) / row["count"])
            assert abs(row["was"] - row["said"]) < slack + 0.08
