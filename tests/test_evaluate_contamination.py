"""Trained tasks in a suite are found, by content and by text."""

import pytest

from etude.errors import Refused
from etude.evaluate.contamination import normalised, offenders, refuse
from etude.types import Message, Task, Verdict


def never(text):
    return Verdict(0.0, False)


def task(text, kind="sum", answer="7", system=None, environment=None):
    prompt = (
        (Message("user", text),) if system is None else (Message("system", system), Message("user", text))
    )
    return Task(prompt, never, kind, answer=answer, environment=environment)


def test_the_same_task_is_found_by_content():
    found = offenders([task("3 + 4 = ?")], [task("1 + 1 = ?"), task("3 + 4 = ?")])
    assert [(o.suite.prompt[0].content, o.how) for o in found] == [("3 + 4 = ?", "content")]


@pytest.mark.parametrize(
    "twin",
    [
        task("What is  3+4 ?"),
        task("what is\n3 + 4?"),
        task("What is 3 + 4 ?", kind="other"),
        task("What is 3 + 4 ?", answer="seven"),
        task("What is 3 + 4 ?", system="Be brief."),
        task("What is ３ + ４ ?"),
    ],
)
def test_the_same_words_are_found_by_text(twin):
    found = offenders([task("What is 3 + 4 ?")], [twin])
    assert [o.how for o in found] == ["text"]


@pytest.mark.parametrize("other", ["What is 3 - 4 ?", "What is 34 ?", "What is 3 4 ?", "What is 3 + 5 ?"])
def test_other_problems_are_not(other):
    assert offenders([task("What is 3 + 4 ?")], [task(other)]) == []


def test_numbers_apart_stay_apart():
    assert normalised(task("sort 1 2")) != normalised(task("sort 12"))


def test_worlds_with_the_same_first_words_are_told_apart_by_content():
    a = Task((Message("user", "You stand on ice."),), never, environment=dict, meta={"environment_key": "a"})
    b = Task((Message("user", "You stand on ice."),), never, environment=dict, meta={"environment_key": "b"})
    assert offenders([a], [b]) == []
    assert offenders([task("You stand on ice.")], [a]) == []
    assert len(offenders([a], [a])) == 1


def test_refusal_counts_and_quotes():
    refuse([task("a")], [task("b")])
    with pytest.raises(Refused, match=r"1 problem\(s\) of arithmetic.*'b'"):
        refuse([task("b")], [task("b"), task("c")], "arithmetic")
