"""A result carries its card, counts errors apart, and reads back as written."""

import json
from dataclasses import replace

import numpy as np
import pytest

from etude.compare.paired import checkpoints
from etude.errors import Refused
from etude.evaluate.intervals import clustered
from etude.evaluate.passk import pass_at
from etude.evaluate.result import Card, EvalResult, from_groups
from etude.types import Episode, Failure, Group, Message, SamplingParams, Span, Task, Verdict

CARD = Card(
    "sums", "smollm2", 0, SamplingParams(), "short", "native 0.1", "abc1234", "last", 100, 2e14, 3000, 60.0
)


def never(text):
    return Verdict(0.0, False)


def episode(task, ok, *, tokens=4, stop="end", failed=False):
    spans = (
        Span("user", np.zeros(3, np.int32)),
        Span("assistant", np.zeros(tokens, np.int32), True, np.zeros(tokens, np.float32)),
    )
    failure = Failure("check", "boom") if failed else None
    return Episode(task, spans, verdicts=(Verdict(float(ok), ok),), stop=stop, failure=failure)


def group(name, right, wrong, *, kind="sum", level=0.0, failed=0, inside=0):
    task = Task((Message("user", name),), never, kind, level)
    good = [episode(task, True) for _ in range(right)]
    bad = [episode(task, False, tokens=8, stop="length") for _ in range(wrong)]
    broken = [episode(task, False, failed=True) for _ in range(inside)]
    lost = tuple(episode(task, False, failed=True, stop="error") for _ in range(failed))
    return Group(task, tuple(good + bad + broken), failed=lost)


GROUPS = [group("a", 4, 0), group("b", 1, 3, kind="product", level=1.0), group("c", 0, 4, level=1.0)]


def test_numbers_by_hand():
    r = from_groups(GROUPS, CARD)
    assert r.mean.mean == pytest.approx(5 / 12)
    assert [(c, n) for _, c, n in r.per_problem] == [(4, 4), (1, 4), (0, 4)]
    assert list(r.passes) == [1, 2, 4]
    assert r.passes[2].mean == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert r.passes[1] == r.mean
    assert (r.kinds["sum"].mean, r.kinds["sum"].problems) == (0.5, 2)
    assert (r.levels["1"].mean, r.levels["1"].samples) == (0.125, 8)
    assert r.truncated == pytest.approx(7 / 12)
    assert r.length == pytest.approx((4 * 5 + 8 * 7) / 12)
    assert (r.errors, r.lost, r.samples) == (0, 0, 4)
    assert r.majority == {}


def test_the_interval_is_the_clustered_one():
    r = from_groups(GROUPS, CARD, level=0.9)
    assert r.mean == clustered([1, 0.25, 0], 4, level=0.9)
    assert r.passes[2] == clustered(pass_at(2, [4, 1, 0], 4), 4, level=0.9)


def test_a_failed_sample_is_an_error_and_never_a_zero():
    plain = from_groups([group("a", 2, 2), group("b", 4, 0)], CARD)
    broken = from_groups(
        [group("a", 2, 2, failed=3, inside=1), group("b", 4, 0), group("c", 0, 0, failed=4)], CARD
    )
    assert broken.mean == plain.mean
    assert broken.length == plain.length
    assert (broken.errors, broken.lost) == (8, 1)
    assert "8 samples without a verdict" in str(broken)


def test_a_problem_with_too_few_verdicts_is_left_out_of_that_k_alone():
    r = from_groups([group("a", 1, 3), group("b", 1, 1, failed=2)], CARD)
    assert r.passes[2].problems == 2
    assert (r.passes[4].problems, r.passes[4].mean) == (1, 1.0)


def test_order_of_groups_and_samples_does_not_matter():
    turned = [replace(g, episodes=g.episodes[::-1]) for g in GROUPS[::-1]]
    a, b = from_groups(GROUPS, CARD).to_dict(), from_groups(turned, CARD).to_dict()
    assert sorted(map(tuple, a["per_problem"])) == sorted(map(tuple, b["per_problem"]))
    for name in ("mean", "low", "high", "truncated", "length"):
        assert a[name] == pytest.approx(b[name])


def test_majority_needs_to_be_told_the_answers():
    def answer(e):
        return "right" if e.correct else "wrong"

    r = from_groups(GROUPS, CARD, answer=answer, ks=[1, 3])
    assert r.majority[1].mean == pytest.approx(5 / 12)
    assert r.majority[3].mean == pytest.approx(1 / 3)  # one right of four never wins three votes


def test_it_reads_back_as_written():
    r = from_groups(GROUPS, CARD, answer=lambda e: e.correct)
    line = json.loads(json.dumps(r.to_dict()))
    again = EvalResult.from_dict(line)
    assert again.to_dict() == r.to_dict()
    assert again.card == CARD
    wanted = (
        "step flops tokens seconds name problems samples seed sampling rule mean low high pass majority kinds"
    )
    assert set(wanted.split()) <= set(line)
    assert line["pass"]["2"][0] == pytest.approx(0.5)
    assert line["kinds"]["sum"]["problems"] == 2


@pytest.mark.parametrize("missing", ["rule", "commit", "sampler", "seed", "sampling", "prompt", "interval"])
def test_a_record_without_its_card_is_refused(missing):
    line = from_groups(GROUPS, CARD).to_dict()
    del line[missing]
    with pytest.raises(Refused, match=missing):
        EvalResult.from_dict(line)


@pytest.mark.parametrize(
    "change",
    [
        {"commit": ""},
        {"sampler": " "},
        {"rule": "best"},
        {"rule": "lucky"},
        {"prompt": None},
        {"sampling": None},
    ],
)
def test_a_blank_card_is_refused(change):
    with pytest.raises(Refused, match=next(iter(change))):
        replace(CARD, **change)


def test_the_best_step_on_the_measured_set_cannot_be_reported():
    assert replace(CARD, rule="best on tuning").rule == "best on tuning"
    with pytest.raises(Refused, match="chosen on 'sums'"):
        replace(CARD, rule="best on sums")


def test_a_number_without_a_card_cannot_be_made():
    mean = clustered([1.0])
    with pytest.raises(TypeError):
        EvalResult(mean=mean, per_problem=(("a", 1, 1),))
    with pytest.raises(Refused, match="card"):
        EvalResult(None, mean, (("a", 1, 1),))
    with pytest.raises(Refused, match="mean"):
        EvalResult(CARD, mean, (("a", 0, 1),))


def test_no_verdict_and_a_problem_twice_are_refused():
    with pytest.raises(Refused, match="none of 4 samples"):
        from_groups([group("a", 0, 0, failed=4)], CARD)
    with pytest.raises(Refused, match="twice"):
        from_groups([group("a", 1, 1), group("a", 1, 1)], CARD)


def test_printing_says_how_it_was_measured():
    text = str(from_groups(GROUPS, CARD))
    for part in (
        "41.7 %",
        "95 % interval",
        "3 problems, 12 samples",
        "rule: last",
        "native",
        "seed 0",
        "abc1234",
    ):
        assert part in text


def test_two_models_are_compared_on_the_same_problems_only():
    strong = from_groups([group(str(i), 4, 0) for i in range(20)], replace(CARD, model="tuned"))
    weak = from_groups([group(str(i), 1, 3) for i in reversed(range(20))], CARD)
    found = checkpoints(strong, weak)
    assert found.effect == pytest.approx(75)
    assert found.verdict.startswith("this run of tuned is better than this run of smollm2 by 75.0 points")
    other = from_groups([group(str(i), 1, 3) for i in range(1, 20)], CARD)
    with pytest.raises(Refused, match=r"1 problem\(s\) stand in only"):
        checkpoints(strong, other)


def test_paired_follows_the_keys_and_not_the_order():
    a = from_groups([group(str(i), i % 5, 4 - i % 5) for i in range(20)], CARD)
    b = from_groups([group(str(i), i % 5, 4 - i % 5) for i in reversed(range(20))], CARD)
    found = checkpoints(a, b)
    assert found.effect == 0
    assert found.error == pytest.approx(100 * np.sqrt(2) / 20)  # only the floor: no problem differs
