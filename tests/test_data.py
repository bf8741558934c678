"""Data that is made or chosen: filters and recipes by hand, provenance, cards, and files that `--tasks` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from etude.data import filters
from etude.data.items import Item, read, write
from etude.data.recipes.clusters import _even, reweighed, shares
from etude.data.recipes.dart import wanted
from etude.data.recipes.ensemble import consensus
from etude.data.recipes.grounded import shown
from etude.data.recipes.programs import number, same_program
from etude.data.recipes.self_guide import _read_input
from etude.data.recipes.stages import dmt, some, stable_decay
from etude.errors import UserError
from etude.tasks import load
from etude.types import Message, Task


def item(prompt: str, answer: str = "1", **more: Any) -> Item:
    return Item({"prompt": prompt, "answer": answer, **more}, {"source": "by hand"})


# ---- filters ---------------------------------------------------------------------------------------------------------


def test_near_duplicates_are_found_by_their_words() -> None:
    long = "a train leaves the station at noon and goes north at forty miles an hour until it is dark"
    items = [
        item(long),
        item(long.replace("dark", "late")),
        item("how many apples are left in the basket when three are eaten"),
    ]
    assert [i.prompt for i in filters.nearly_different(0.7)(items)] == [items[0].prompt, items[2].prompt]
    assert len(filters.nearly_different(1.0)(items)) == 3


def test_what_asks_the_same_is_one_question_in_any_case_and_spacing() -> None:
    items = [item("3 + 4"), item("3+4"), item("3+4", "8"), item("")]
    assert filters.different(items[:3]) == [items[0], items[2]]
    assert filters.held_out([item("3 +4")])(items) == [items[3]]
    assert filters.answered(items) == items[:3]
    assert filters.per_question(1)(items[:3]) == [items[0]]


def test_repetition_and_length() -> None:
    assert filters.repeats("a b c d a b c d") == pytest.approx(1 - 4 / 5)  # abcd bcda cdab dabc abcd
    assert filters.repeats("one two three four five") == 0.0
    of = ["a b c", "a b c d e"]  # mean 4, std 1: 2 to 6
    kept = filters.usual_length(of, lambda i: i.text)(
        [item("x", "a b"), item("x", "a"), item("x", "a b c d e f g")]
    )
    assert [i.text for i in kept] == ["a b"]
    assert filters.without_boilerplate([item("x", "Sure, here is one."), item("x", "surely")]) == [
        item("x", "surely")
    ]


def test_a_sieve_counts_what_came_and_what_stayed() -> None:
    sieve = filters.Sieve([item("a"), item("a"), item("")]).through("answered", filters.answered)
    assert sieve.through("different", filters.different).counts == [("answered", 3, 2), ("different", 2, 1)]


# ---- recipes by hand -------------------------------------------------------------------------------------------------


def test_hard_questions_get_more_answers() -> None:
    """DART-Math: n_i = max(1, ceil(k d_i / max d))."""
    assert wanted("difficulty", 4, [0.0, 0.2, 0.5, 0.8]) == [1, 1, 3, 4]
    assert (
        wanted("difficulty", 4, [0.5, 0.5]) == wanted("uniform", 4, [0.5, 0.5]) == [4, 4]
    )  # equally hard: uniform
    assert wanted("difficulty", 4, [0.0, 0.0]) == [4, 4]
    assert wanted("vrt", 4, [0.3]) == [0]


def test_three_answers_agree_or_one_stands_for_them() -> None:
    """Ensemble-Instruct's rule; for single numbers a majority of three."""
    assert consensus(["7", "8", " 7 "]) == 0
    assert consensus(["7", "8", "8"]) == 1
    assert consensus(["7", "8", "9"]) is None
    # ROUGE-L of the pairs: 0-1 4/5, 0-2 2/4, 1-2 2/5: the first has the largest sum.
    assert consensus(["the red", "the red fox", "the end"]) == 0
    assert consensus(["", "8", "8"]) == 1
    assert consensus(["", "8", "9"]) is None


def test_shares_of_clusters() -> None:
    rng = np.random.default_rng(0)
    assert _even(5, [1, 9, 9]) == [1, 2, 2]
    assert sum(shares(30, np.array([0.2, 0.8]), [100, 100], rng)) == 30
    assert shares(5, np.array([0.5, 0.5]), [2, 100], rng)[0] <= 2
    assert shares(9, np.array([1.0, 0.0]), [3, 0], rng) == [3, 0]  # no more than there are
    weights = reweighed(np.array([0.5, 0.25, 0.25]), {0: 2.0, 1: 6.0})
    # Of the third nothing was chosen: the mean, 4. 1, 1.5, 1 over their sum.
    assert weights == pytest.approx(np.array([1, 1.5, 1]) / 3.5)


def test_a_replayed_share() -> None:
    special, general = [item(f"s{i}") for i in range(512)], [item(f"g{i}") for i in range(10)]
    stages = dmt()([special, general], 0)
    assert len(stages["specialised"]) == 512
    replayed = [i for i in stages["mixed"] if i.came.get("replayed")]
    assert len(replayed) == 2  # 512 / 256
    assert len(stages["mixed"]) == 12
    assert len(dmt(0.0)([special, general], 0)["mixed"]) == 10  # mixed-sequential
    assert len(stable_decay(0.5)([general, special], 0)["decay"]) == 512 + 5
    assert some(special, 0.01, 0, "a") == some(special, 0.01, 0, "a") != some(special, 0.01, 1, "a")
    with pytest.raises(UserError, match="of two files"):
        dmt()([special], 0)


def test_inputs_are_read_from_what_models_say() -> None:
    assert _read_input("\nInput: 3+4\nInput: 5") == "3+4"
    assert _read_input('"3+4"') == "3+4"
    assert _read_input(" \n") == ""


def test_numbers_and_programs_as_they_are_compared() -> None:
    assert (number("7"), number("1,200"), number("1/2"), number("seven"), number(None)) == (
        7,
        1200,
        0.5,
        None,
        None,
    )
    assert isinstance(number("7"), int)
    one, other = (
        "def solution():\n    a = 3  # three\n    return a + 4",
        "def solution():\n    b = 3\n    return b + 4",
    )
    assert same_program(one) == same_program(other) != same_program(one.replace("4", "5"))
    assert same_program("def (") == "def ("


def test_passages_stand_before_the_question() -> None:
    task = Task((Message("system", "s"), Message("user", "Who?")), str)  # type: ignore[arg-type]
    assert shown(task, []) == list(task.prompt)
    assert shown(task, ["A.", "B."])[1].content == "A.\n\nB.\n\nWith what stands above, answer.\n\nWho?"


# ---- files -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_by_tasks(tmp_path: Path) -> None:
    items = [item("3+4=", "7", reference="3+4 is 7. The answer is 7."), item("1+1=", "2")]
    for file in write(items, tmp_path):
        tasks = load(str(file)).sources[0].tasks("train") + load(str(file)).sources[0].tasks("eval")
        by = {t.prompt[-1].content: t for t in tasks}
        assert by["3+4="].reference == "3+4 is 7. The answer is 7."
        assert by["3+4="].check("so 7").correct
        assert by["1+1="].answer == "2"
    assert (
        json.loads(pyarrow.parquet.read_table(tmp_path / "data.parquet")["provenance"][0].as_py())["source"]
        == "by hand"
    )
    assert read(tmp_path / "data.jsonl") == items
    parquet = read(tmp_path / "data.parquet")
    assert [(i.prompt, i.text, i.came) for i in parquet] == [(i.prompt, i.text, i.came) for i in items]
