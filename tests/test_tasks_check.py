"""Extraction, the checkers, their strict variants and the self-test."""

import pickle
from fractions import Fraction

import pytest

from etude.errors import UserError
from etude.tasks.check import Exact, Function, Math, NoText, Number, corrupt, isolated, strict
from etude.tasks.extract import RULES, alone, extract, numbers, value
from etude.tasks.selftest import self_test
from etude.types import Message, Task, Verdict


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7-3 = 4", ["7", "3", "4"]),
        ("it is -3", ["-3"]),
        ("(5)-3", ["5", "3"]),
        ("x = −2.5", ["-2.5"]),
        ("1,234 and 1,2,3", ["1,234", "1", "2", "3"]),
        ("1/2 cup", ["1/2"]),
        ("2e3.", ["2e3"]),
        (".5 or 3.", [".5", "3"]),
        ("v2 and abc1", []),
        ("none", []),
    ],
)
def test_numbers(text, found):
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" **12** ", Fraction(12)),
        ("$\\boxed{1/2}$.", Fraction(1, 2)),
        ("1,200", Fraction(1200)),
        ("-0.50", Fraction(-1, 2)),
        ("50e-2", Fraction(1, 2)),
        ("1/0", None),
        ("12 apples", None),
        ("1e999999999", None),
        ("9" * 5000, None),
        ("nan", None),
        ("", None),
    ],
)
def test_value(text, number):
    assert value(text) == number


def test_hostile_texts_take_no_time():
    import time

    start = time.monotonic()
    for piece in ("+", "<answer>", "\\boxed{", "1,", "1/", '"', "*", " ", "the answer is ", "-1e", "$", "11"):
        text = piece * (40_000 // len(piece))
        for rule in RULES:
            for take in (extract, alone):
                take(text, rule)
        Number("1")(text)
        strict(Exact("a"))(text)
    assert time.monotonic() - start < 3


def test_rules():
    text = "First 3.\n<answer> 4 </answer> then \\boxed{\\frac{1}{2}}\nThe answer is: Paris.\n"
    assert extract(text, "first_number") == "3"
    assert extract(text, "tag") == "4"
    assert extract(text, "boxed") == "\\frac{1}{2}"
    assert extract(text, "line") == "Paris."
    assert extract(" a ", "whole") == "a"
    assert extract("no tag", "tag") is None
    assert extract("\\boxed{open", "boxed") is None
    assert extract(" ", "line") is None
    assert extract("The answer to the given problem is 12.", "line") == "12."


@pytest.mark.parametrize(
    "check", [Number("12"), Number("12", "tag"), Number("12", "boxed"), Number("12", "line")]
)
def test_number(check):
    shown = {"tag": "<answer>{}</answer>", "boxed": "\\boxed{{{}}}"}.get(check.extract, "{}")
    assert check(shown.format("12.0")) == Verdict(1.0, True)
    assert check(shown.format("13")) == Verdict(0.0, False, "That is not right.")
    assert not check("").correct
    assert not check(shown.format("twelve")).correct
    assert pickle.loads(pickle.dumps(check)) == check


def test_feedback():
    low, none = "That is 11", "no idea"
    assert Number("12", feedback="none")(low).feedback == ""
    assert Number("12", feedback="hint")(low).feedback == "11 is too low."
    assert Number("12", feedback="hint")("13!").feedback == "13 is too high."
    assert Number("12", feedback="hint")(none).feedback == "No answer was found."
    assert Number("12", "tag", "hint")(none).feedback.endswith("between <answer> and </answer>.")
    assert Number("12", feedback="full")(low).feedback == "That is not right. The right answer is 12."
    assert Number("12", feedback="full")("12").feedback == ""
    assert "2 words" in Exact("New York", feedback="hint")("Paris").feedback


def test_tolerance():
    assert Number("0.3333", tolerance=0.001)("1/3").correct
    assert not Number("0.3333")("1/3").correct


def test_exact():
    assert Exact("Paris")('"paris."').correct
    assert not Exact("Paris", ignore_case=False)("paris").correct
    assert not Exact("Paris")("Paris or Rome").correct
    assert Exact("a  b")("a b").correct


def test_math():
    check = Math("\\frac{1}{2}")
    assert isolated(check)
    for good in ("0.5", "$\\frac{2}{4}$", "The answer is $\\frac{1}{2}$."):
        assert check(good).correct, good
    for bad in ("0.6", "x", "", "The answer is $\\frac{1}{3}$."):
        assert not check(bad).correct, bad
    assert Math("x^2+2x+1")("(x+1)^2").correct
    assert strict(check)("1/2").correct
    for hedged in ("1/3 or 1/2", "1/3\n1/2", "$1/3$ $1/2$"):
        assert not strict(check)(hedged).correct, hedged


def test_math_works_off_the_main_thread():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(Math("1/2"), "0.5").result(30).correct


def test_function():
    assert Function(lambda a: 0.25)("x") == Verdict(0.25, False)
    assert Function(lambda a: True)("x") == Verdict(1.0, True)
    assert Function(lambda a: Verdict(0.5, True, "so"))("x").feedback == "so"
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="a reward lies in"):
            Function(lambda a, w=wrong: w)("x")
    with pytest.raises(ValueError, match="must return a number"):
        Function(lambda a: None)("x")


def test_strict_refuses_hedging():
    for hedged in ("12 or 13", "13, no, 12", "maybe 12"):
        assert not strict(Number("12"))(hedged).correct, hedged
    for plain in (
        "12",
        " The answer is 12.\n",
        "**12**",
        "5 + 7 = 12",
        "The answer to the problem is 5 + 7 = 12",
    ):
        assert strict(Number("12"))(plain).correct, plain
    tags = strict(Number("12", "tag"))
    assert tags("as 5+7 it is <answer>12</answer>").correct
    assert not tags("<answer>13</answer> <answer>12</answer>").correct
    assert not strict(Exact("Paris"))("paris").correct
    assert strict(Exact("Paris"))("Paris.").correct
    seen = []
    strict(Function(lambda a: bool(seen.append(a))))(" **x**. ")
    assert seen == ["x"]
    stricter = strict(Function(lambda a: True, stricter=lambda a: False))
    assert not stricter("x").correct
    with pytest.raises(UserError, match="no stricter variant"):
        strict(3)


def test_strict_gym():
    from etude.tasks.gym import GymSource

    task = GymSource("gcd").draw("gcd", None, 1, 0)[0]
    hedge = f"It is {int(task.answer) + 1} or {task.answer}"
    assert task.check(hedge).correct
    assert not strict(task.check)(hedge).correct
    assert strict(task.check)(f"The answer is {task.answer}.").correct


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Number("12", "lastnumber"), "no extraction rule 'lastnumber'; did you mean 'last_number'"),
        (lambda: Number("12", feedback="ful"), "no feedback 'ful'; did you mean 'full'"),
        (lambda: Number("twelve"), "the gold answer 'twelve' is not a number"),
        (lambda: Number("12", tolerance=-1), "tolerance is -1"),
        (lambda: Number("12", tolerance=float("nan")), "tolerance is nan"),
    ],
)
def test_bad_checks(make, sentence):
    with pytest.raises(UserError) as error:
        make()
    assert sentence in str(error.value)


def test_corrupt_is_wrong():
    for gold in ("0", "-7919", "12", "0.5", "-3959.5", "1e20", "Paris", "", "qzj"):
        assert corrupt(gold) != gold
        if value(gold) is not None:
            assert abs(value(corrupt(gold)) - value(gold)) > abs(value(gold))


def test_self_test_names_the_fault():
    def task(check, answer="12"):
        return Task((Message("user", "?"),), check, "sum", answer=answer, meta={"source": "mine"})

    self_test(task(Number("12")))
    with pytest.raises(
        UserError, match="task source 'mine', kind 'sum': the checker rejects the gold answer '12'"
    ):
        self_test(task(Number("13")))
    with pytest.raises(UserError, match="accepts '7955' where '12' is right"):
        self_test(task(Function(lambda a: True)))
    with pytest.raises(UserError, match="failed on its gold answer: ZeroDivisionError"):
        self_test(task(Function(lambda a: 1 / 0)))
    with pytest.raises(UserError, match="no gold answer"):
        self_test(task(Number("12"), None))


def test_a_world_is_not_judged_by_text():
    with pytest.raises(RuntimeError, match="judged by its environment"):
        NoText("lake")("up")
