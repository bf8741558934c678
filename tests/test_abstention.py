"""Abstention as a third outcome, and the risk-coverage curve, worked by hand."""

import json

import numpy as np
import pytest

import worlds_of_letters as letters
from etude.errors import UserError
from etude.evaluate.abstention import CONFIDENCE, Abstaining, abstention, likelihood, risk_coverage, stated
from etude.evaluate.result import EvalResult
from etude.report.terminal import eval_screen
from etude.tasks.check import Exact
from etude.train.measure import Exam, evaluate_model
from etude.train.settings import run_settings
from etude.types import Episode, Group, Message, Span, Task, Verdict

IDK = ("I don't know",)


def said(task: Task, text: str, confidence: float | None = None, logp: float = -1.0) -> Episode:
    spans = (
        Span("user", np.zeros(2, np.int32)),
        Span("assistant", np.zeros(2, np.int32), True, np.full(2, logp, np.float32)),
    )
    notes = {} if confidence is None else {CONFIDENCE: confidence}
    return Episode(task, spans, verdicts=(task.check(text),), text=text, notes=notes)


def test_outcomes_by_hand() -> None:
    known = Task("2+2?", Exact("4"), answer="4")
    none = Task("And the colour of four?", Exact("I don't know"), answer="I don't know")
    groups = [
        Group(known, (said(known, "4", 0.9), said(known, "5", 0.5), said(known, "I don't know.", 0.8))),
        Group(
            none, (said(none, "Well.\nI don't know", 0.9), said(none, "blue", 0.4), said(none, "red", 0.9))
        ),
    ]
    found = abstention(groups, Abstaining(IDK))
    means = {name: facts["mean"] for name, facts in found["shares"].items()}
    assert means == pytest.approx(
        {"answerable": 1 / 3, "unanswerable": 1 / 3, "abstained": 2 / 6, "selective": 1 / 4}
    )
    # by confidence: 0.9 right and 0.9 wrong; 0.5 wrong; 0.4 wrong. Of six samples four are covered at most.
    assert found["curve"] == [
        pytest.approx([2 / 6, 1 / 2, 0.9]),
        pytest.approx([3 / 6, 2 / 3, 0.5]),
        pytest.approx([4 / 6, 3 / 4, 0.4]),
    ]
    assert found["aurc"] == pytest.approx((2 * 1 / 2 + 2 / 3 + 3 / 4) / 4)
    assert found["ap"] == pytest.approx(1 / 2)
    assert found["confidence"] == "the method's own"
    screen = eval_screen({"mean": 0.5, "low": 0.4, "high": 0.6, "abstention": found})
    assert "33.3%" in screen
    assert "AURC 0.604, average precision 50.0%" in screen


def test_confidence_that_says_nothing_has_the_accuracy_as_its_precision() -> None:
    even = risk_coverage([0.5] * 4, [True, False, False, False])
    assert (even["ap"], even["aurc"], even["curve"]) == (0.25, 0.75, [[1.0, 0.75, 0.5]])
    best, worst = (risk_coverage(c, [True, True, False, False]) for c in ([4, 3, 2, 1], [1, 2, 3, 4]))
    assert best["ap"] == 1.0
    assert best["aurc"] == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert worst["ap"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert worst["aurc"] > best["aurc"]
    assert risk_coverage([], []) == {"curve": [], "aurc": None, "ap": None}
    assert len(risk_coverage(range(500), [True] * 500)["curve"]) == 64


def test_a_choice_that_says_so_abstains() -> None:
    prompt = (Message("user", "Which?\n\nA. one\nB. two\nC. I don't know\n\nAnswer with A, B or C."),)
    how = Abstaining(IDK, answer=lambda e: e.text.strip())
    asked, none = Task(prompt, Exact("A"), answer="A"), Task(prompt, Exact("C"), answer="C")
    assert [how.unanswerable(t) for t in (asked, none)] == [False, True]
    assert [how.abstains(said(asked, text)) for text in ("A", "B", "C", "I don't know")] == [
        False,
        False,
        True,
        True,
    ]
    marked = Task("?", Exact("x"), answer="x", meta={"unanswerable": True})
    assert how.unanswerable(marked)
    thought = Task("?", Exact("7"), answer="7")
    assert not how.abstains(said(thought, "I don't know yet.\n8")), "only the last line abstains"
    assert not how.abstains(said(thought, "<think>\nI don't know</think>"))


def test_measures_of_confidence() -> None:
    task = Task("?", Exact("7"), answer="7")
    assert likelihood(said(task, "7", logp=-0.5)) == pytest.approx(np.exp(-0.5))
    texts = ("Confidence: 80%", "confidence 0.3, or rather confidence: .25", "my confidence is 7", "sure")
    assert [stated(t) for t in texts] == pytest.approx([0.8, 0.25, 0.07, 0.0])
    group = Group(task, tuple(said(task, text) for text in ("7", "7", "7", "8")))
    curve = abstention([group], Abstaining(IDK, "agreement", lambda e: e.text))["curve"]
    assert curve == [pytest.approx([0.75, 0.0, 2 / 3]), pytest.approx([1.0, 0.25, 0.0])]


def test_a_model_is_examined_with_it(tmp_path) -> None:
    held = letters.words().holdout(6, 0)
    changes = {"precision": "fp32", "max_tokens": "2", "abstain": "nothing", "confidence": "agreement"}
    result = evaluate_model(letters.model(tmp_path), Exam("words", held, 2, 0, changes=changes))
    facts = json.loads(json.dumps(result.to_dict()))
    assert facts["abstention"]["shares"]["answerable"]["mean"] == pytest.approx(facts["mean"])
    assert facts["abstention"]["shares"]["unanswerable"] is None
    assert facts["abstention"]["confidence"] == "agreement"
    assert EvalResult.from_dict(facts).abstention == facts["abstention"]
    with pytest.raises(UserError, match=r"run\.abstain holds an empty text"):
        run_settings({}, {"abstain": ("x", "")})


def test_no_verdict_counts_nowhere() -> None:
    task = Task("?", lambda text: Verdict(0.0, False), answer="7")
    found = abstention([Group(task, (Episode(task, ()),))], Abstaining(IDK))
    assert found["answered"] == 0
    assert found["shares"]["abstained"] is None
