"""pass@k and majority@k against numbers by hand, enumeration and drawing."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.evaluate.passk import majority_at, pass_at
from etude.seeds import generator


def test_pass_at_by_hand():
    # 4 samples, 2 correct: of the 6 pairs, one holds no correct sample
    assert pass_at(2, [2], 4) == pytest.approx([5 / 6], abs=1e-15)
    assert pass_at(3, [2], 4) == pytest.approx([1.0])  # only two wrong ones: three draws must hit
    assert list(pass_at(4, [0, 4], 4)) == [0.0, 1.0]


def test_pass_at_one_is_the_mean_and_pass_at_all_is_any():
    c, n = np.arange(9), 8
    assert pass_at(1, c, n) == pytest.approx(np.asarray(c) / np.asarray(n), abs=1e-15)
    assert list(pass_at(8, c, n)) == [0.0] + [1.0] * 8


@given(st.integers(1, 40), st.data())
def test_pass_at_is_the_binomial_formula(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert float(pass_at(k, [c], n)[0]) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-13)


def test_pass_at_is_exact_where_binomials_overflow_and_where_it_is_tiny():
    assert float(pass_at(5000, [1], 10_000)[0]) == pytest.approx(0.5, rel=1e-10)
    assert float(pass_at(1, [1], 10**12)[0]) == pytest.approx(1e-12, rel=1e-12, abs=0)


def test_pass_at_has_no_bias_unlike_the_plug_in():
    rng = generator("test", "pass")
    c = rng.binomial(8, 0.2, 40_000)
    true = 1 - 0.8**4
    assert pass_at(4, c, 8).mean() == pytest.approx(true, abs=0.006)
    assert abs((1 - (1 - c / 8) ** 4).mean() - true) > 0.03  # the tolerance rejects the biased estimator


def test_samples_may_differ_between_problems():
    assert pass_at(2, [1, 1], [2, 3]) == pytest.approx([1.0, 2 / 3])


@pytest.mark.parametrize(
    ("k", "c", "n"), [(0, [1], 4), (5, [1], 4), (1, [5], 4), (1, [-1], 4), (1, [1.5], 4)]
)
def test_impossible_counts_are_refused(k, c, n):
    with pytest.raises(ValueError, match=r"k between|counts"):
        pass_at(k, c, n)


def enumerated(k, answers, correct):
    """majority@k by going through every choice of k samples."""
    total = 0.0
    sets = list(combinations(range(len(answers)), k))
    share = {a: np.mean([c for b, c in zip(answers, correct, strict=True) if b == a]) for a in set(answers)}
    for chosen in sets:
        votes = {}
        for i in chosen:
            if answers[i] is not None:
                votes[answers[i]] = votes.get(answers[i], 0) + 1
        leaders = [a for a, v in votes.items() if v == max(votes.values())]
        total += sum(share[a] for a in leaders) / max(len(leaders), 1)
    return total / len(sets)


def test_majority_by_hand():
    # two of three are right: every pair but the (right, right) one is a tie, split evenly
    assert majority_at(2, ["a", "a", "b"], [True, True, False]) == pytest.approx(1 / 3 + 2 / 3 / 2)
    assert majority_at(3, ["a", "a", "b"], [True, True, False]) == 1.0
    assert majority_at(3, ["a", "b", "b"], [True, False, False]) == 0.0


def test_majority_of_one_is_the_mean():
    assert majority_at(1, ["a", "b", "c", None], [True, False, True, False]) == pytest.approx(0.5)


def test_a_sample_without_an_answer_casts_no_vote():
    assert majority_at(3, ["a", None, None], [True, False, False]) == 1.0
    assert majority_at(2, [None, None], [False, False]) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_majority_is_the_enumerated_expectation_in_any_order(data):
    answers = data.draw(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=8))
    right = data.draw(st.sets(st.sampled_from(["a", "b", "c"])))
    correct = [a in right for a in answers]
    k = data.draw(st.integers(1, len(answers)))
    value = majority_at(k, answers, correct)
    assert value == pytest.approx(enumerated(k, answers, correct), abs=1e-12)
    assert majority_at(k, answers[::-1], correct[::-1]) == pytest.approx(value, abs=1e-12)


def test_equal_answers_with_different_verdicts_count_by_their_share():
    assert majority_at(2, ["a", "a"], [True, False]) == pytest.approx(0.5)


def test_majority_at_scale_agrees_with_drawing():
    rng = generator("test", "majority")
    answers = list(rng.integers(0, 6, 64))
    correct = [a == 2 for a in answers]
    hits = []
    for _ in range(20_000):
        counts = np.bincount(rng.permutation(answers)[:16], minlength=6)
        leaders = np.flatnonzero(counts == counts.max())
        hits.append((2 in leaders) / len(leaders))
    assert majority_at(16, answers, correct) == pytest.approx(np.mean(hits), abs=0.012)
