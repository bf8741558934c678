"""Labels, intervals, curves: pure functions of numbers."""

import numpy as np
import pytest

from etude.claims.curves import table_at
from etude.claims.verdict import LABELS, MEANING, Difference, guarded, label, paired
from fake_runs import facts, rising


@pytest.mark.parametrize(
    ("low", "effect", "high", "said"),
    [
        (1.0, 4.0, 7.0, "held"),
        (0.1, 0.7, 1.4, "below the smallest effect"),  # lite_ppo's: certain, and too small to count
        (-0.7, 0.7, 1.9, "not held"),
        (-1.9, -0.9, -0.1, "not held"),  # the other way, and as small
        (-5.0, -1.0, 1.9, "not held"),
        (-9.0, -4.0, -1.0, "reversed"),
        (0.1, 1.5, 2.9, "not resolved"),
        (-1.0, 4.0, 9.0, "not resolved"),
        (-6.0, -2.0, 2.1, "not resolved"),
    ],
)
def test_labels(low, effect, high, said):
    found = Difference(effect, low, high, 1.0)
    assert label(found, 2.0) == said
    assert label(found.scaled(-1), 2.0, better="lower") == said


def test_every_label_is_defined_and_every_difference_has_one():
    assert set(MEANING) == set(LABELS)
    rng = np.random.default_rng(0)
    seen = {
        label(Difference(e, e - w, e + w, w), 2.0)
        for e, w in zip(rng.normal(0, 3, 500), rng.gamma(1, 1, 500), strict=True)
    }
    assert seen == set(LABELS) - {"no test"}


def test_a_guard_that_is_broken_or_in_doubt():
    for low, high, said in ((-1.9, 1, "held"), (-4, 1, "not resolved"), (-9, -4, "not held")):
        assert guarded("held", Difference(0, low, high, 1), 2.0) == said
    assert guarded("reversed", Difference(0, -9, -4, 1), 2.0) == "reversed"


def test_intervals_of_seeds_by_hand():
    """Differences 0, 0, 0, 0, 10: mean 2, standard error 2, four degrees: t = 2.776 (95 %), 0.941 (80 %)."""
    found = paired(np.array([0.0, 0, 0, 0, 10]) + np.arange(5), np.arange(5.0))
    assert (found.effect, found.high) == (pytest.approx(2), pytest.approx(2 + 2 * 2.776, abs=1e-3))
    assert found.visible == pytest.approx(2 * (2.776 + 0.941), abs=2e-3)
    with pytest.raises(ValueError, match="two seeds"):
        paired(np.zeros(1), np.zeros(1))


def test_pairing_takes_out_what_arms_share():
    """Seeds that move both arms alike, and problems that are hard for both, do not widen the interval."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 0.2, (1, 200))
    own = [0.5 + shared + rng.normal(0, 0.05, (5, 200)) for _ in range(2)]
    found = paired(own[0] + 0.1, own[1])
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.04


def test_intervals_cover():
    """Of 400 pairs of equal arms with noise of seeds, problems and samples, the interval misses zero in about 5 %."""
    missed = 0
    for trial in range(400):
        rng = np.random.default_rng(trial)
        problems = np.clip(rng.normal(0.5, 0.25, 100), 0, 1)
        tables = [
            rng.binomial(
                8, np.clip(problems + rng.normal(0, 0.02, (5, 1)) + rng.normal(0, 0.05, (1, 100)), 0, 1)
            )
            / 8
            for _ in range(2)
        ]
        found = paired(*tables)
        missed += not found.low <= 0 <= found.high
    assert 6 <= missed <= 34


def test_a_curve_between_its_evaluations():
    run = facts(rising(0.6, 0.2), 0, updates=60, start=True, flops=10.0, seed_noise=0.0)
    points = [np.mean([c / n for _, c, n in p["per_problem"]]) for p in run["curve"]]
    at = {x: float(table_at([run], "accuracy", "step", [x]).mean()) for x in (0, 10, 15, 60, 90)}
    assert at[0] == pytest.approx(points[0])
    assert at[10] == pytest.approx(points[1])
    assert at[15] == pytest.approx((points[1] + points[2]) / 2)
    assert at[60] == at[90] == pytest.approx(points[-1]), "nothing is guessed beyond the last evaluation"
    assert table_at([run], "accuracy", "flops", [150.0]).mean() == pytest.approx((points[1] + points[2]) / 2)


def test_pass_at_8_needs_eight_attempts_only_where_it_is_read():
    run = facts(rising(0.2), 0, start=True)
    run["curve"][3]["per_problem"] = [[key, c // 4, 2] for key, c, _ in run["curve"][3]["per_problem"]]
    assert not np.isnan(table_at([run], "pass@8", "step", [60])).any()
    assert np.isnan(table_at([run], "pass@8", "step", [35])).all()


def test_what_is_read_from_the_steps():
    run = facts(rising(0.2), 0, updates=6, columns={"grad_norm": 1.0})
    run["columns"]["grad_norm"] = [1.0, 3.0, 5.0, 5.0, 5.0, 5.0]
    run["columns"]["signal"] = [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert table_at([run], "grad_norm_cv", "step", [2]) == pytest.approx([50.0])  # 1 and 3: SD 1, mean 2
    assert table_at([run], "wasted", "flops", [2e9]) == pytest.approx([25.0])
