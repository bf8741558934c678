"""Hashes of what tasks hold: the same in every process, and others as soon as anything that judges an answer is another."""

import functools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from etude import tasks
from etude.tasks.answer import Answer
from etude.tasks.content import contents, plain
from etude.tasks.program import Program
from etude.tasks.task_set import TaskSet
from etude.types import Task, Verdict

BASE = Task(
    "2+2=", Answer("4"), "sum", 1.0, "4", "two and two", ("think",), meta={"source": "a.jsonl", "unit": "m"}
)


def of(*given: Task) -> dict[str, str]:
    return contents(given)


CHANGES = {
    "prompt": (replace(BASE, prompt="2+3="), {"questions"}),
    "gold": (replace(BASE, answer="5"), {"questions"}),
    "check": (replace(BASE, check=Answer("5")), {"checks"}),
    "extract": (replace(BASE, check=Answer("4", extract="boxed")), {"checks"}),
    "difficulty": (replace(BASE, difficulty=2.0), {"difficulties"}),
    "reference": (replace(BASE, reference=None), {"references"}),
    "hints": (replace(BASE, hints=("think", "more")), {"hints"}),
    "column": (replace(BASE, meta={"source": "a.jsonl", "unit": "km"}), {"columns"}),
    "place": (replace(BASE, meta={"source": "/other/b.jsonl", "unit": "m"}), set()),
    "world": (replace(BASE, environment=functools.partial(dict, size=3)), {"checks"}),
}


@pytest.mark.parametrize("case", list(CHANGES))
def test_each_part_has_its_own_hash(case: str) -> None:
    other, wanted = CHANGES[case]
    before, after = of(BASE), of(other)
    assert {name for name in before if before[name] != after[name]} == wanted


def test_order_does_not_matter_and_what_was_computed_is_no_content() -> None:
    two = replace(BASE, prompt="1+1=", check=Answer("2"), answer="2")
    before = of(BASE, two)
    assert before == of(two, BASE)
    assert BASE.check("4").correct, "which remembers things on the check"
    assert BASE.check.asked == "number"
    assert before == of(BASE, two)


def judging(word: str):
    def check(answer: str) -> Verdict:
        return Verdict(float(word in answer), word in answer)

    return check


class Judge:
    def __init__(self, words: set[str]) -> None:
        self.words = words

    def __call__(self, answer: str) -> Verdict:
        return Verdict(0.0, False)

    def other(self, answer: str) -> Verdict:
        return Verdict(1.0, True)


UNLIKE = [
    (judging("a"), judging("b")),
    (
        lambda s: Verdict(1.0, True),
        lambda s: Verdict(0.0, False),
    ),
    (Judge({"a", "b"}), Judge({"a", "c"})),
    (Judge({"a"}).other, Judge({"b"}).other),
    (functools.partial(judging, "a"), functools.partial(judging, "b")),
    (Program("f", (((1,), 2),)), Program("f", (((1,), 3),))),
    (Program("f", (((1,), 2),)), Program("g", (((1,), 2),))),
    (re.compile("a"), re.compile("b")),
    (b"a", b"b"),
    ({"a": 1}, {"a": 2}),
]


@pytest.mark.parametrize("pair", range(len(UNLIKE)))
def test_checks_are_told_apart_by_what_they_hold(pair: int) -> None:
    one, other = UNLIKE[pair]
    assert plain(one) == plain(one)
    assert plain(one) != plain(other)


def test_a_value_that_holds_itself_and_one_that_cannot_be_pickled() -> None:
    held: list = [1]
    held.append(held)
    assert "..." in str(plain(held))
    with open(os.devnull) as file:
        assert plain(file) == ["_io.TextIOWrapper", []]


def test_every_process_gives_the_same() -> None:
    code = "from test_content import *; print(of(replace(BASE, check=Judge({'a', 'b', 'c', 'd'}))), plain({3: {'x', 'y', 'z'}, 'b': 1}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_a_task_set_counts_its_parts_and_its_split() -> None:
    several = [replace(BASE, prompt=f"{i}+0=", check=Answer(str(i)), answer=str(i)) for i in range(10)]
    plainly, other = TaskSet.of(several).contents(), TaskSet.of(several, eval_share=0.5).contents()
    assert {name for name in plainly if plainly[name] != other[name]} == {"split"}
    assert tasks.load("gcd").contents() != tasks.load("gcd:max_value=99").contents()


SPECS = {
    "t.jsonl": "{here}/t.jsonl",
    "t.jsonl:eval=u.jsonl,as=x": "{here}/t.jsonl:eval={here}/u.jsonl,as=x",
    "'a b, c.jsonl':weight=2,gcd": '"{here}/a b, c.jsonl":weight=2,gcd',
    "chain_sum:max_terms=2,style=tag": "chain_sum:max_terms=2,style=tag",
    "lab:level=1": "lab:level=1",
    "./folder/*.csv": "{here}/folder/*.csv",
    "owner/name:split=train,eval=test": "owner/name:split=train,eval=test",
    "/away/t.jsonl": "/away/t.jsonl",
}


@pytest.mark.parametrize("spec", list(SPECS))
def test_a_spec_with_its_paths_from_the_root(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = tasks.absolute(spec)
    assert found == SPECS[spec].format(here=tmp_path)
    monkeypatch.chdir("/")
    assert tasks.absolute(found) == found
