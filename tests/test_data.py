"""Data that is made or chosen: filters and recipes by hand, provenance, cards, and files that `--tasks` reads."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from etude import cli
from etude.data import filters
from etude.data.checking import check
from etude.data.items import Item, read, write
from etude.data.recipe import catalogue, find
from etude.data.recipes.clusters import _even, embedded, reweighed, shares
from etude.data.recipes.dart import wanted
from etude.data.recipes.ensemble import consensus
from etude.data.recipes.grounded import shown
from etude.data.recipes.programs import number, same_program
from etude.data.recipes.self_guide import _read_input
from etude.data.recipes.stages import dmt, some, stable_decay
from etude.data.session import Order, choose, make, mix
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.tasks import load
from etude.train.pipeline import read as read_pipeline
from etude.types import Message, SamplingParams, Task


def item(prompt: str, answer: str = "1", **more: Any) -> Item:
    return Item({"prompt": prompt, "answer": answer, **more}, {"source": "by hand"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("model") / "tiny"
    return str(tiny_directory(place, string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3))


@pytest.fixture
def sums(tmp_path: Path) -> str:
    file = tmp_path / "sums.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(40))
    )
    return str(file)


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


def test_items_are_embedded_by_what_they_say(tiny: str) -> None:
    policy = Policy.load(tiny, precision="fp32")
    points = embedded(policy, [item("aaaa"), item("aaaa"), item("zz9", "bbbbbbb")])
    assert points.shape == (3, 32)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert points[0] == pytest.approx(points[1], abs=1e-5)
    assert float(points[0] @ points[2]) < 0.999


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


def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy answers by rule, so that what recipes make of answers can be seen: right where i is even."""

    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        if why.startswith("inputs"):
            return [f"Input: {100 + 7 * i}+1=" for i in range(len(prompts))]
        numbers = [int(p[-1].content.split("+")[0]) for p in prompts]
        if why == "annotator 2":
            return [str(n) for n in numbers]
        return [str(n + 1) if n % 2 == 0 else f"{n + (2 if why == 'generator' else 3)}" for n in numbers]

    monkeypatch.setattr(Workshop, "said", said)


def test_answers_stay_where_writers_agree(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch)
    facts = make(
        Order("ensemble", tmp_path / "out", 40, licences={"sums.jsonl": "CC0"}, say=lambda text: None),
        sums,
        tiny,
    )
    items = read(tmp_path / "out" / "data.jsonl")
    assert len(items) == 20  # of the even ones two of three agree, of the odd ones none
    assert all(int(i.prompt.split("+")[0]) % 2 == 0 for i in items)
    assert all(
        i.came["writer"] == tiny and i.came["recipe"] == "ensemble" and i.came["parent"] for i in items
    )
    assert facts["filters"][0]["kept"].startswith("answers on which three agree (20 of 20 are right")
    assert facts["sources"] == {"sums.jsonl": "CC0"}
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| sums.jsonl | CC0 |" in card
    assert "2310.13961" in card


def test_a_set_of_its_own_asks_nothing_that_is_examined(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch)
    held = tmp_path / "held.jsonl"
    held.write_text('{"prompt": "100+1=", "answer": "101"}\n{"prompt": "107 + 1 =", "answer": "108"}\n')
    facts = make(
        Order(
            "self_guide",
            tmp_path / "out",
            8,
            against=str(held),
            changes={"self_guide.near": "1"},
            say=lambda text: None,
        ),
        sums,
        tiny,
    )
    prompts = [i.prompt for i in read(tmp_path / "out" / "data.jsonl")]
    assert "114+1=" in prompts
    assert not {"100+1=", "107+1="} & set(prompts)
    last = facts["filters"][-1]
    assert (last["kept"], last["of"] - last["left"]) == ("what is not held out for evaluation", 2)


def test_right_answers_are_kept_to_the_number_that_is_wanted(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.types import Episode, Verdict

    def attempts(
        self: Workshop, tasks: Any, samples: int, seed: int = 0, **params: Any
    ) -> list[list[Episode]]:
        """Task i is right once in i + 1, in other words every time."""
        found = []
        for task in tasks:
            level = int(task.prompt[0].content.split("+")[0]) % 4
            found.append(
                [
                    Episode(
                        task,
                        (),
                        verdicts=(Verdict(1.0, j % (level + 1) == 0),),
                        text=f"{seed}.{j}: {task.answer}",
                    )
                    for j in range(samples)
                ]
            )
        return found

    monkeypatch.setattr(Workshop, "attempts", attempts)
    make(
        Order(
            "dart",
            tmp_path / "out",
            4,
            changes={"dart.k": "3", "dart.probe": "4", "dart.trials": "8"},
            say=lambda text: None,
        ),
        sums,
        tiny,
    )
    items = read(tmp_path / "out" / "data.jsonl")
    by = {}
    for i in items:
        by.setdefault(i.came["fail_rate"], []).append(i)
    # d = 0, 1/2, 1/2 (levels 1 and 2: 2 of 4 right), 3/4; n = 1, 2, 2, 3 of which the last finds 2 of its 8 trials.
    sizes = {rate: len(mine) / len({i.prompt for i in mine}) for rate, mine in by.items()}
    assert all(sizes[rate] == wanted("difficulty", 3, [rate, 0.75])[0] for rate in sizes if rate < 0.75)
    if 0.75 in sizes:
        assert sizes[0.75] == 2


def test_programs_are_run_before_they_are_kept(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        """In turn: right; right in other names; right as a float; wrong."""
        code = ("a = {0}\n    return a + 1", "b = {0}\n    return b + 1", "return {0} + 1.0", "return {0}")
        numbers = [int(p[-1].content.split("+")[0]) for p in prompts]
        return [
            f"```python\ndef solution():\n    {code[i % 4].format(n)}\n```" for i, n in enumerate(numbers)
        ]

    monkeypatch.setattr(Workshop, "said", said)
    facts = make(
        Order(
            "programs",
            tmp_path / "out",
            3,
            changes={"programs.k": "4", "programs.keep": "3"},
            say=lambda text: None,
        ),
        sums,
        tiny,
    )
    items = read(tmp_path / "out" / "data.jsonl")
    assert len(items) == 6  # two different ones of each problem
    assert facts["filters"][0]["kept"].startswith(
        "different programs whose result is the answer (9 were right)"
    )
    assert {type(i.row["cases"][0][1]) for i in items} == {int, float}
    (source,) = load(str(tmp_path / "out" / "data.jsonl")).sources
    task = source.tasks("train")[0]
    assert task.check(task.answer).correct
    assert not task.check("def solution():\n    return -1").correct
    (table,) = load(str(tmp_path / "out" / "data.parquet")).sources
    assert {t.check for t in table.tasks("train")} == {t.check for t in source.tasks("train")}


def test_the_first_level_that_fails(tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from etude.types import Episode, Verdict

    def attempts(
        self: Workshop, tasks: Any, samples: int, seed: int = 0, **params: Any
    ) -> list[list[Episode]]:
        return [[Episode(t, (), verdicts=(Verdict(1.0, t.difficulty < 2),))] * samples for t in tasks]

    monkeypatch.setattr(Workshop, "attempts", attempts)
    make(
        Order("boundary", tmp_path / "out", 6, changes={"boundary.probe": "2"}, say=lambda text: None),
        "lab:kind=sort+sum",
        tiny,
    )
    items = read(tmp_path / "out" / "data.jsonl")
    assert len(items) == 6
    assert {(i.row["kind"], i.came["level"]) for i in items} == {("sort", 2.0), ("sum", 2.0)}
    assert all(i.row["reference"] and i.came["solved"] == 0.0 for i in items)


def test_answers_with_passages_are_kept_without_them(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_text(
        "To add 5 and 1 one counts on.\n\nApples are red.\n\nPears are green.\n\nPlums are blue.\n"
    )
    seen: list[str] = []

    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        seen.extend(p[-1].content for p in prompts)
        return [f"answer {i}" for i, _ in enumerate(prompts)]

    monkeypatch.setattr(Workshop, "said", said)
    changes = {"grounded.corpus": str(tmp_path / "corpus.txt"), "grounded.passages": "1"}
    make(Order("grounded", tmp_path / "out", 40, changes=changes, say=lambda text: None), sums, tiny)
    items = {i.prompt: i for i in read(tmp_path / "out" / "data.jsonl")}
    assert any(text.startswith("To add 5 and 1") and text.endswith("5+1=") for text in seen)
    assert items["5+1="].came["passages"] == 1
    assert items["5+1="].row["reference"].startswith("answer")


def test_some_of_a_file_are_chosen(tmp_path: Path, tiny: str, sums: str) -> None:
    facts = choose(
        Order(
            "clusters",
            tmp_path / "out",
            12,
            changes={
                "clusters.number": "3",
                "clusters.rounds": "2",
                "clusters.steps": "1",
                "clusters.batch": "4",
            },
            say=lambda text: None,
        ),
        sums,
        tiny,
    )
    items = read(tmp_path / "out" / "data.jsonl")
    assert len(items) == len({i.prompt for i in items}) == 12
    assert {i.came["round"] for i in items} == {0, 1}
    assert facts["items"] == 12
    with pytest.raises(UserError, match="holds 40 items; 50 cannot be chosen"):
        choose(Order("clusters", tmp_path / "more", 50, say=lambda text: None), sums, tiny)


def test_a_mixture_is_a_pipeline(tmp_path: Path, sums: str) -> None:
    other = tmp_path / "chat.jsonl"
    other.write_text('{"prompt": "Say hello.", "answer": "Hello."}\n')
    facts = mix(
        Order("dmt", tmp_path / "out", changes={"dmt.replay": "0.1"}, say=lambda text: None),
        [sums, str(other)],
    )
    assert facts["stages"] == {"specialised": 40, "mixed": 5}
    stages = read_pipeline(tmp_path / "out" / "pipeline.toml")
    assert [s.name for s in stages] == ["specialised", "mixed"]
    assert stages[1].plan.model == "@specialised"


def test_a_file_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, held = tmp_path / "some.jsonl", tmp_path / "held.jsonl"
    long = "a train leaves the station at noon and goes north at forty miles an hour until it is {}"
    rows = ["3+4=", "3 + 4 =", "", long.format("dark"), long.format("late"), "9+9="]
    file.write_text("".join(json.dumps({"prompt": p, "answer": "1"}) + "\n" for p in rows))
    held.write_text('{"prompt": "9 + 9 =", "answer": "18"}\n')
    found = check(str(file), str(held))["found"]
    assert found == {
        "empty": [3],
        "the same question and answer as an earlier row": [2],
        "a question nearly that of an earlier row (0.8 by MinHash)": [5],
        f"asks what '{held}' asks": [6],
    }
    assert cli.run(["data", "check", str(file), "--against", str(held)]) == 1
    assert "row 3" in capsys.readouterr().out
    file.write_text('{"prompt": "3+4=", "answer": "7"}\n')
    assert cli.run(["data", "check", str(file)]) == 0


def test_what_cannot_be_used_is_said_in_a_sentence(
    tmp_path: Path, tiny: str, sums: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    for words, says in (
        (["make", "dat", "-t", sums, "--out", out], "did you mean 'dart'"),
        (["make", "dmt", "-t", sums, "--out", out], "dmt is a recipe of `etude data mix`"),
        (
            ["make", "dart", "-t", sums, "--out", out, "-m", tiny, "--set", "dart.kk=3"],
            "there is no setting 'dart.kk'",
        ),
        (["make", "dart", "-t", sums, "--out", out, "-m", "http://h/v1#m"], "name a local one"),
        (
            ["make", "orca", "-t", sums, "--out", out, "-m", tiny, "--set", "orca.who=teacher"],
            "name one by --teacher",
        ),
        (["make", "dart", "-t", "/nowhere.jsonl", "--out", out, "-m", tiny], "nowhere.jsonl"),
        (
            ["make", "dart", "-t", sums, "--out", out, "-m", tiny, "--set", "k=3"],
            "--set takes dart.NAME=value",
        ),
        (["mix", "dmt", sums, sums, "--out", out, "--licence", "x=MIT"], "which is no source here"),
        (["make", "dart", "-t", sums, "--out", str(tmp_path), "-m", tiny], "exists already"),
        (["recipes", "dat"], "there is no recipe of data 'dat'"),
    ):
        assert cli.run(["data", *words]) == 2, words
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", catalogue())
def test_every_recipe_says_what_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = catalogue()[name]
    assert find(name, recipe.verb) is recipe
    assert recipe.idea
    assert callable(recipe.build.build(name))
    assert cli.run(["data", "recipes", name]) == 0
    assert recipe.idea in capsys.readouterr().out
    assert SamplingParams().temperature == 1.0
    assert Message("user", "x").role == "user"
