"""Data that is made or chosen by whole recipes, with a policy that answers by rule: provenance, cards, and files that are checked."""

from __future__ import annotations

import json
import string
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude import cli
from etude.data.checking import check
from etude.data.embedding import embedded
from etude.data.items import read
from etude.data.recipe import catalogue, find
from etude.data.recipes.auto_cot import fits
from etude.data.recipes.clusters import read_by
from etude.data.recipes.dart import wanted
from etude.data.session import Order, choose, make, mix
from etude.data.workshop import Scribe, Workshop
from etude.errors import UserError
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.tasks import load
from etude.train.pipeline import read as read_pipeline
from etude.types import Message, SamplingParams
from test_data import item


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


def test_items_are_embedded_by_what_they_say(tiny: str) -> None:
    policy = Policy.load(tiny, precision="fp32")
    items = [item("aaaa"), item("aaaa"), item("zz9", "bbbbbbb")]
    points = embedded(policy, [read_by(policy, one) for one in items])
    assert points.shape == (3, 32)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert points[0] == pytest.approx(points[1], abs=1e-5)
    assert float(points[0] @ points[2]) < 0.999


def test_demonstrations_that_nobody_wrote(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One a cluster, from the first of its questions whose chain is short; no gold answer is looked at."""
    told: list[str] = []

    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        told.extend(p[-1].content for p in prompts)
        numbers = [int(p[-1].content.split("+")[0]) for p in prompts]
        return ["and so on\n" * 6 if n % 2 else f"{n} and 1:\n{n + 2}" for n in numbers]

    monkeypatch.setattr(Workshop, "said", said)
    out = tmp_path / "shown"
    assert cli.run(["data", "make", "auto_cot", "-m", tiny, "-t", sums, "-n", "4", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "data.jsonl").read_text().splitlines()]
    assert 1 <= len(rows) <= 4
    for row in rows:
        n = int(row["prompt"].split("+")[0])
        assert n % 2 == 0
        assert (row["answer"], row["reference"]) == (str(n + 2), f"{n} and 1:\n{n + 2}")
    came = [row["provenance"] for row in rows]
    assert len({c["cluster"] for c in came}) == len(rows)
    assert all(text.endswith("\n\nThink step by step.") for text in told)
    assert len(told) >= sum(c["tried"] for c in came)
    (task, *_) = load(sums).examined() or []
    assert fits(task, "one\ntwo\nso it is 7.", 3) == "7"
    assert fits(task, "one\ntwo\nso it is 7.", 2) is None
    assert fits(task, "we find 7 and then add 1 to that number", 3) is None


def test_replies_that_were_cut_off_are_told() -> None:
    """Those that a recipe itself keeps short do not count."""
    ends = Counter({("length", 8): 3, ("end", 8): 1, ("length", 2): 50})
    nobody: Any = None
    shop = Workshop(
        "", nobody, {"policy": Scribe("m", ends=ends)}, None, nobody, SamplingParams(max_tokens=8), 1, 0
    )
    assert shop.cut_off == "75% of the replies were cut off at run.max_tokens=8"
    ends["end", 8] += 100
    assert shop.cut_off == ""
