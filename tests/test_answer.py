"""The default check against what a person says of gold and reply."""

import json
from pathlib import Path

import pytest

from etude.tasks.answer import Answer
from etude.tasks.answer_kinds import kind_of, math_kind
from etude.tasks.check import strict
from etude.tasks.quantity import numbers, quantity

ROWS = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "answers.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{i} {r['gold']}" for i, r in enumerate(ROWS)])
def test_it_agrees_with_a_person(row: dict) -> None:
    assert Answer(row["gold"])(row["reply"]).correct is row["right"]


def test_golds_pass_their_own_check() -> None:
    for gold in {r["gold"] for r in ROWS}:
        assert Answer(gold)(gold).correct, gold
        assert Answer(gold)(f"The answer is {gold}").correct or kind_of(gold) in ("list", "math"), gold


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("12", "number"), ("1/2", "number"), ("$18", "number"), ("12 apples", "number"), ("50%", "number"),
        ("\\frac{1}{2}", "number"), ("B", "choice"), ("(B)", "choice"), ("yes", "yes or no"), ("True", "yes or no"),
        ("2024-03-05", "date"), ("March 5, 2024", "date"), ("12:30", "time"), ("3 pm", "time"), ("2:3", "ratio"), ("July 4", "date"), ("31/12/1999", "date"), ("0xFF", "digits"), ("020 6921 4236", "digits"),
        ("[1, 2]", "list"), ("1, 2, 3", "list"), ("\\{1, 2\\}", "set"), ("(1, 2)", "tuple"), ("[0, 1)", "math"),
        ("(x-2)(x+3)", "math"), ("7!", "math"), ("x > 2", "math"), ("100 m^2", "number"), ("3m^2", "math"), ("x^2+1", "math"), ("\\sqrt{2}", "math"), ("x=3", "math"), ("Paris", "text"), ("New York", "text"), ("B-12", "text"),
    ],
)  # fmt: skip
def test_the_kind_is_seen_from_the_gold(gold: str, kind: str) -> None:
    assert kind_of(gold) == kind


def test_quantities() -> None:
    assert [float(q.value) for q in numbers("From 3 to -4.5, then 1,200 and f(2)-5 and x^7")] == [
        3,
        -4.5,
        1200,
    ]
    assert [float(q.value) for q in numbers("2 hours and 30 minutes, 5 dollars and 30 cents")] == [2.5, 5.3]
    assert not numbers("not 7, more than 8, x > 9, 10 is wrong, between 11 and")
    assert quantity("4\\sqrt{2}") is None
    assert quantity("1e999999999") is None
    assert quantity("1" * 5000) is None
    assert quantity("3/0") is None


def test_the_strict_reading_is_the_answer_alone() -> None:
    check = strict(Answer("42"))
    for reply in ("42", "The answer is 42.", "so \\boxed{42}", "<answer>42</answer>"):
        assert check(reply).correct, reply
    for reply in (
        "41 or 42",
        "I count 41, then 42",
        "\\boxed{41} \\boxed{42}",
        "42 is more than 41",
        "42 or so",
    ):
        assert not check(reply).correct, reply


def test_hostile_replies_end_soon() -> None:
    for reply in (
        "(" * 20_000,
        "\\boxed{" * 5000,
        "1," * 20_000,
        "<answer>" * 5000,
        "= " * 20_000,
        "-" * 50_000,
        "a " * 50_000,
        "one hundred and " * 10_000,
        "5 hours and " * 10_000,
        "2024-1-" * 10_000,
        "is not true " * 10_000,
        "1 1/2 " * 10_000,
    ):
        for gold in ("42", "B", "yes", "Paris", "2024-03-05"):
            assert not Answer(gold)(reply).correct


@pytest.mark.parametrize("check", ["auto", "math"])
@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        ("-5", "The answer is \N{MINUS SIGN}5.", True),
        ("-5", "**-5**", True),
        ("-5", "answer:-5", True),
        ("18", "<answer>18</answer>", True),
        ("18", "The answer is \\$18.", True),
        ("1500", "1.5e3", True),
        ("1.5e3", "1500", True),
        ("7", "First \\boxed{3}, then finally \\boxed{7}", True),
        ("[0, \\infty)", "[0, \N{INFINITY})", True),
        ("\\frac{1}{\\sqrt{n}}", "\\sqrt{1/n}", True),
        ("\\frac{\\pi}{2}", "pi/2", True),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}", True),
        ("B", "B.", True),
        ("Yes", "Yes.", True),
        ("Paris", "Paris.", True),
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}", False),
        ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}", False),
        ("\\sqrt{2}", "1.41421356", False),
    ],
)
def test_forms_that_people_write(check: str, gold: str, reply: str, right: bool) -> None:
    kind = math_kind(gold) if check == "math" else "auto"
    assert Answer(gold, kind=kind)(reply).correct == right


def test_an_inequality_that_would_have_to_be_solved_is_not() -> None:
    from etude.tasks.isolate import Pool

    with Pool(workers=1, seconds=20) as pool:
        for reply in ("\\frac{x^9+1}{x^8-3} < \\sqrt{x}", "x^{20} > x^{19} + 3x^2", "<" + " " * 300 + "x"):
            assert not pool.run(Answer("[1, \\infty)"), reply).correct
        assert pool.run(Answer("[1, \\infty)"), "1 \\le x").correct
