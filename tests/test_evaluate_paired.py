"""Differences between arms: by hand, reductions, invariance, verdicts."""

import json

import numpy as np
import pytest
from scipy import stats

from etude.compare.paired import compare, differ, probability_best
from etude.compare.variance import Contrast, contrast, floor, holm, needed, seed_parts
from etude.seeds import generator


def arms(*shifts, seeds=3, problems=100, spread=0.02, name="arms"):
    """Tables [S, P] of arms whose accuracy differs by `shifts`."""
    rng = generator("test", name)
    base = rng.uniform(0.2, 0.6, problems)
    out = {}
    for i, shift in enumerate(shifts):
        p = (
            base
            + shift
            + spread * rng.standard_normal((seeds, 1))
            + 0.02 * rng.standard_normal((seeds, problems))
        )
        out[f"arm{i}"] = rng.binomial(8, np.clip(p, 0, 1)) / 8
    return out


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, made rising
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.5]) == pytest.approx([0.5])
    rows = holm(np.array([[0.01, 0.02], [0.02, 0.01]]))
    assert rows == pytest.approx(np.array([[0.02, 0.02], [0.02, 0.02]]))


def test_seed_parts_by_hand():
    # seed means 0.25 and 0.75: variance 0.125, over 2 seeds 0.0625. Rest after rows and columns: +-0.25
    table = np.array([[0.0, 0.5], [1.0, 0.5]])
    spread, noise = seed_parts(table)
    assert spread == pytest.approx(0.0625)
    assert noise == pytest.approx(4 * 0.25**2 / (1 * 1) / 4)


def test_without_problem_differences_it_is_welch():
    # every problem alike within a seed: only seeds vary, and the tables' rows are Welch's two samples
    a, b = np.array([0.5, 0.56, 0.47]), np.array([0.3, 0.42, 0.35])
    size = 10**6  # so that the floor of unseen differences, 2 m^2 / P^2, vanishes
    c = contrast(np.broadcast_to(a[:, None], (3, size)), np.broadcast_to(b[:, None], (3, size)))
    known = stats.ttest_ind(a, b, equal_var=False)
    assert float(c.p) == pytest.approx(known.pvalue, rel=1e-4)
    assert float(c.degrees) == pytest.approx(known.df, rel=1e-4)
    assert c.limits(0.95) == pytest.approx(tuple(known.confidence_interval(0.95)), rel=1e-4)


def test_two_checkpoints_are_a_paired_t_test_over_problems():
    rng = generator("test", "ttest")
    a, b = rng.random(4000), rng.random(4000)
    found, known = differ(a, b), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(known.pvalue, rel=2e-3)
    low, high = known.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), rel=2e-3)


def test_problem_noise_is_not_counted_twice():
    # cells of variance 1/12, and each arm's own problem effects of a third of that: over S = 3 seeds both
    # weigh the same, so that counting the cells' noise again under problems would give 3/2 of the truth
    rng = generator("test", "noise")
    x = rng.random((4000, 2, 3, 50)) + rng.random((4000, 2, 1, 50)) / np.sqrt(3)
    c = contrast(x[:, 0], x[:, 1])
    true = 2 / 12 / 150 + 2 / 36 / 50
    assert np.mean(c.error**2) == pytest.approx(true, rel=0.1)
    assert np.var(c.effect) == pytest.approx(true, rel=0.08)


def test_no_difference_at_all_keeps_a_width():
    same = np.full((3, 100), 1.0)
    c = contrast(same, same)
    low, high = c.limits(0.95)
    assert low == pytest.approx(-high)
    assert 0.02 < high < 0.04  # as the rule of three says of 100 problems
    assert float(c.p) == 1.0
    assert floor(np.zeros(100)) == pytest.approx(2e-4)
    assert floor(np.array([0.5, *[0.0] * 9])) == pytest.approx(2 * 0.25 / 100)


def test_order_of_seeds_and_problems_and_the_sign():
    tables = arms(0.0, 0.1)
    a, b = tables["arm0"], tables["arm1"]
    c, shuffled, turned = contrast(a, b), contrast(a[::-1, ::-1], b[:, ::-1]), contrast(b, a)
    assert float(shuffled.p) == pytest.approx(float(c.p))
    assert float(turned.p) == pytest.approx(float(c.p))
    assert turned.limits(0.9) == pytest.approx(tuple(-v for v in c.limits(0.9)[::-1]))
    moved = contrast(a, np.roll(b, 1, axis=1))
    assert float(moved.error) > 1.1 * float(c.error)  # unpairing the problems costs


def test_the_untrained_model_needs_one_row():
    tables = arms(0.2, 0.0)
    untrained = tables["arm1"][:1]
    with pytest.raises(ValueError, match="'untrained' has one seed"):
        compare({"untrained": untrained, "grpo": tables["arm0"]})
    found = compare({"untrained": untrained, "grpo": tables["arm0"]}, fixed=["untrained"])
    assert found.differences[0].better == "grpo"
    copies = compare({"untrained": np.repeat(untrained, 3, 0), "grpo": tables["arm0"]}, fixed=["untrained"])
    assert copies.differences[0].error == pytest.approx(found.differences[0].error)


def test_arms_may_have_lost_a_seed():
    tables = arms(0.0, 0.2, seeds=4)
    found = compare({"a": tables["arm0"], "b": tables["arm1"][:3]})
    assert found.differences[0].seeds == (3, 4)
    assert found.differences[0].better == "b"


def test_verdicts_name_the_better_arm_and_the_points():
    up = compare(arms(0.0, 0.2)).differences[0]
    assert up.better == "arm1"
    assert up.verdict.startswith(
        f"arm1 is better than arm0 by {up.effect:.1f} points (95 % interval {up.low:.1f} to"
    )
    assert "Holm-adjusted p" in up.verdict
    down = compare(arms(0.2, 0.0)).differences[0]
    assert down.better == "arm0"
    assert (
        f"arm0 is better than arm1 by {-down.effect:.1f} points (95 % interval {-down.high:.1f} to"
        in down.verdict
    )
    assert up.low < 20 < up.high
    assert (up.high - up.low) / 2 == pytest.approx(up.error * stats.t.ppf(0.975, up.degrees))  # all in points
    assert down.low < -20 < down.high


def test_no_difference_says_how_many_seeds_would_do():
    same = compare(arms(0.0, 0.0, spread=0.03)).differences[0]
    assert same.better is None
    assert "no difference seen" in same.verdict
    assert f"about {same.need.seeds} more seeds would resolve 3 points" in same.verdict
    assert same.verdict.count("(") == same.verdict.count(")")


def test_holm_counts_the_comparisons():
    tables = arms(0.0, 0.06, 0.0, 0.0, 0.0, spread=0.01)
    one = compare({k: tables[k] for k in ("arm0", "arm1")}).differences[0]
    five = {d.arm: d for d in compare(tables).differences}
    assert one.adjusted == one.p
    assert five["arm1"].p == pytest.approx(one.p)
    assert five["arm1"].adjusted == pytest.approx(4 * one.p)
    assert five["arm1"].need.seeds > one.need.seeds  # power at the level that Holm's first step asks for
    assert (five["arm1"].low, five["arm1"].high) == pytest.approx((one.low, one.high))


def test_base_can_be_chosen():
    found = compare(arms(0.0, 0.2), base="arm1").differences[0]
    assert (found.arm, found.base) == ("arm0", "arm1")
    with pytest.raises(ValueError, match="no such arm: x"):
        compare(arms(0.0, 0.2), base="x")


def test_need_by_the_power_of_a_t_test():
    # only seeds vary, equally in both arms: Welch's degrees are 2 (S - 1), the two-sample t-test's
    c = Contrast(np.array(0.0), (np.array(0.03**2 / 3),) * 2, (3, 3), np.array(1e-12), 100)
    total = 3 + needed(c, 0.03).seeds

    def power(n, size=1.0):
        degrees = 2 * (n - 1)
        return stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, size / np.sqrt(2 / n))

    assert power(total) >= 0.8 > power(total - 1)
    assert total == 17  # as in the tables: 17 per group for an effect of one standard deviation
    two = Contrast(np.array(0.0), (np.array(0.03**2 / 2),) * 2, (2, 2), np.array(1e-12), 100)
    for size in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0):
        least = next(n for n in range(2, 100) if power(n, size) >= 0.8)
        assert 2 + needed(two, 0.03 * size).seeds == least


def test_need_turns_to_problems_where_seeds_cannot_help():
    c = Contrast(np.array(0.0), (np.array(1e-6),) * 2, (3, 3), np.array(0.02**2), 50)
    need = needed(c, 0.03)
    assert need.seeds is None
    more = 50 + need.problems
    at = Contrast(np.array(0.0), c.seeds, c.counts, c.problems * 50 / more, more)
    assert needed(at, 0.03).seeds is not None
    enough = Contrast(np.array(0.0), (np.array(1e-8),) * 2, (3, 3), np.array(1e-8), 50)
    assert needed(enough, 0.03).seeds == 0
    runs = differ(np.zeros(50), np.r_[1, np.zeros(49)])
    assert "more problems would be needed" in runs.verdict
    assert "seed" not in runs.verdict


def test_probability_best_by_hand_and_in_order():
    # two arms, many problems, seeds alike but for a known shift: P(b > a) has a closed form for fixed arms
    rng = generator("test", "best")
    a, b = rng.random((1, 400)), rng.random((1, 400))
    c = contrast(b, a, fixed=(True, True))
    best = probability_best({"a": a, "b": b}, fixed=["a", "b"])
    assert best["b"] == pytest.approx(stats.norm.cdf(float(c.effect / c.error)), abs=0.015)
    assert sum(best.values()) == pytest.approx(1)
    clear = probability_best(arms(0.0, 0.2, 0.1))
    assert clear["arm1"] > 0.97
    assert clear == probability_best(arms(0.0, 0.2, 0.1))


def test_probability_best_knows_that_three_seeds_say_little():
    a = np.full((3, 200), 0.5) + np.array([[-0.02], [0.0], [0.02]])
    wide = probability_best({"a": a, "b": a + 0.02})["b"]
    rng = generator("test", "t")
    t = rng.standard_t(2, (2, 400_000)) * 0.02 / np.sqrt(3)
    assert wide == pytest.approx(np.mean(t[1] + 0.02 > t[0]), abs=0.015)
    assert wide < stats.norm.cdf(0.02 / (0.02 * np.sqrt(2 / 3))) - 0.03  # what a normal would claim


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"a": np.zeros((3, 5))}, "two arms"),
        ({"a": np.zeros((3, 5)), "b": np.zeros((3, 6))}, "different problems"),
        ({"a": np.zeros((3, 5)), "b": np.full((3, 5), 40.0)}, "'b' has values outside"),
        ({"a": np.zeros((3, 5)), "b": np.full((3, 5), np.nan)}, "'b' has values outside"),
        ({"a": np.zeros(5), "b": np.zeros(5)}, r"\[seeds, problems\]"),
        ({"a": np.zeros((3, 1)), "b": np.zeros((3, 1))}, "two problems"),
    ],
)
def test_bad_tables_are_refused(tables, why):
    with pytest.raises(ValueError, match=why):
        compare(tables)


def test_facts_are_json():
    facts = compare(arms(0.0, 0.2, 0.0)).to_dict()
    again = json.loads(json.dumps(facts))
    assert again["differences"][0]["better"] == "arm1"
    assert again["means"]["arm0"] == facts["means"]["arm0"]
    assert again["differences"][0]["verdict"].startswith("arm1 is better")
