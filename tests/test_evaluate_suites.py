"""Suites are fixed by content."""

import os
import subprocess
import sys

import pytest

from etude.errors import Refused, UserError
from etude.evaluate import suites
from etude.evaluate.contamination import offenders


@pytest.mark.parametrize("name", suites.SUITES)
def test_the_problems_are_those_recorded(name):
    suite = suites.load(name)  # recomputes the hash
    assert suites.digest(list(suite.tasks)) == suites.HASHES[name]
    assert len({t.key for t in suite.tasks}) == len(suite.tasks) == 5 * 3 * suites.EACH
    for kind in suites.SUITES[name]:
        for difficulty in range(3):
            cell = [t for t in suite.tasks if t.kind == kind and t.difficulty == difficulty]
            assert len(cell) == suites.EACH
    for task in suite.tasks[:: suites.EACH]:
        assert task.answer is not None
        assert task.check(task.answer).correct
    assert offenders([], suite.tasks) == []


def test_one_difficulty_and_the_title():
    easy = suites.load("arithmetic/easy")
    assert len(easy.tasks) == 50
    assert {t.difficulty for t in easy.tasks} == {0.0}
    assert easy.title == f"arithmetic/easy#{suites.HASHES['arithmetic'][:8]}"


def test_other_problems_under_the_name_are_refused(monkeypatch):
    monkeypatch.setattr(suites, "EACH", 9)
    with pytest.raises(Refused, match="reasoning-gym"):
        suites.load("text")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="'logic'"):
        suites.load("logics")
    with pytest.raises(UserError, match="'easy'"):
        suites.load("logic/eazy")


def test_another_process_with_another_hash_seed_makes_the_same_problems():
    code = "from etude.evaluate import suites as s; print(*(s.digest(s.build(n)) for n in s.SUITES))"
    env = {**os.environ, "PYTHONHASHSEED": "17"}
    made = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert made.stdout.split() == list(suites.HASHES.values())
