"""Intervals of a mean over problems."""

import numpy as np
import pytest
from scipy import stats

from etude.evaluate.intervals import clustered, limits
from etude.seeds import generator


def test_with_one_sample_it_is_nearly_the_jeffreys_interval():
    x = np.array([1.0] * 60 + [0.0] * 140)
    found = clustered(x)
    n = 200 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 199)) ** 2  # v / (m (1 - m)) = 1/n exactly
    low, high = stats.beta.ppf([0.025, 0.975], 0.3 * n + 0.5, 0.7 * n + 0.5)
    # the variance of P - 1 degrees makes n* = 199 for 200, which the mixing with 1/200 takes back in part
    assert (found.low, found.high) == pytest.approx((low, high), abs=4e-4)
    assert (found.mean, found.problems, found.samples) == (pytest.approx(0.3), 200, 200)


def test_a_mean_of_0_or_1_keeps_a_width():
    for p in (1, 30, 300):
        none, every = clustered(np.zeros(p), 8), clustered(np.ones(p), 8)
        assert none.low == 0.0
        assert every.high == 1.0
        assert none.high == pytest.approx(1 - every.low)
        assert none.high > 0.8 / p
    # as large as from one sample per problem: nothing tells how passes clump
    assert clustered(np.zeros(30), 16).high == clustered(np.zeros(30), 1).high


def test_constant_shares_keep_a_width():
    found = clustered(np.full(50, 0.5), 8)
    assert found.high - found.low > 0.05


def test_copies_of_a_sample_do_not_narrow_it_and_independent_samples_do():
    rng = generator("test", "clustered")
    once = rng.random(200) < 0.4
    copied = clustered(once.astype(float), 16)
    alone = clustered(once.astype(float), 1)
    fresh = clustered(rng.binomial(16, 0.4, 200) / 16, 16)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=1e-9)
    assert (fresh.high - fresh.low) * 3 < alone.high - alone.low


def test_order_and_mirror_do_not_matter():
    rng = generator("test", "order")
    x = rng.binomial(4, 0.2, 60) / 4
    a, b, mirrored = clustered(x, 4), clustered(x[::-1], 4), clustered(1 - x, 4)
    assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=1e-12)
    assert (a.low, a.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)


def test_equal_weights_change_nothing_and_a_weight_moves_the_mean():
    x = np.array([1.0] * 10 + [0.0] * 20)
    plain, same = clustered(x), clustered(x, weights=np.full(30, 7.0))
    assert (plain.low, plain.high) == pytest.approx((same.low, same.high))
    heavy = clustered(x, weights=[10.0] * 10 + [1.0] * 20)
    assert heavy.mean == pytest.approx(100 / 120)
    one = clustered(np.array([1.0, *[0.0] * 29]), weights=[1e6, *[1.0] * 29])
    assert one.high - one.low > 0.9  # in effect a single problem


def test_a_higher_level_is_wider_and_leading_axes_are_rows():
    rng = generator("test", "axes")
    x = rng.random((3, 40))
    mean, low, high = limits(x, 40)
    _, lower, higher = limits(x, 40, level=0.99)
    assert np.all((lower < low) & (low < mean) & (mean < high) & (high < higher))
    row = clustered(x[1])
    assert (row.low, row.high) == pytest.approx((low[1], high[1]))


@pytest.mark.parametrize("bad", [[], [0.5, 1.2], [0.5, float("nan")], [[0.5]]])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match=r"values"):
        clustered(bad)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="level"):
        clustered([0.5], level=95)
    with pytest.raises(ValueError, match="weights"):
        clustered([0.5, 0.5], weights=[1.0, 0.0])
    with pytest.raises(ValueError, match="sample"):
        clustered([0.5, 0.5], [4, 0])


def test_it_prints_what_stands_behind_it():
    text = str(clustered([0.0, 1.0, 0.5, 0.5], 2))
    assert text.startswith("50.0 % (95 % interval")
    assert "4 problems, 8 samples" in text
