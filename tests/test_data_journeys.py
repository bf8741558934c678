"""Journeys, distillation by sentences, instructions and lines for continued pre-training: with models that answer by rule."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.data.items import read
from etude.data.recipes.dasd import sentence_ends, sentence_logp, teachers_share
from etude.data.recipes.instructed import posed
from etude.data.recipes.journey import BACK, told, wrong_turn
from etude.data.session import Order, make, mix
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.models.tiny import tiny_directory
from etude.types import Episode, Verdict
from test_data import item


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("model") / "tiny"
    return str(tiny_directory(place, string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3))


@pytest.fixture
def sums(tmp_path: Path) -> str:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(6)))
    return str(file)


def order(name: str, place: Path, wanted: int = 6, **changes: str) -> Order:
    return Order(
        name, place, wanted, changes={f"{name}.{k}": v for k, v in changes.items()}, say=lambda text: None
    )


def number(prompt: Any) -> int:
    return int(prompt[-1].content.split("+")[0])


def test_a_wrong_turn_begins_as_no_right_path_does() -> None:
    completions = [(["a", "x"], True), (["b", "y"], True), (["b", "z"], False), (["c", "u", "v"], False)]
    assert wrong_turn("a", completions, 2) == ["c", "u"]
    assert wrong_turn("c", completions, 2) == []
    assert told(["a", "7"], [["c", "u"], []], BACK) == f"c\nu\n{BACK}\na\n7"


def test_journeys_and_shortcuts_of_one_tree(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempts(
        self: Workshop, tasks: Any, samples: int, seed: int = 0, **params: Any
    ) -> list[list[Episode]]:
        """Right at the second try, except at 0+1, which is never solved."""
        texts = [["Guess.\n9"] + [f"Count on.\n{t.answer}"] * (samples - 1) for t in tasks]
        return [
            [
                Episode(t, (), text=x, verdicts=(Verdict(1.0, number(t.prompt) > 0 and j > 0),))
                for j, x in enumerate(mine)
            ]
            for t, mine in zip(tasks, texts, strict=True)
        ]

    def continued(self: Workshop, begun: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        """At the root: a wrong turn, then the right way; below it the right answer."""
        return [
            (("Jump.\nFly.\nSwim.\n99", f"Count on.\n{t.answer}")[i % 2] if not text else str(t.answer))
            for i, (t, text) in enumerate(begun)
        ]

    monkeypatch.setattr(Workshop, "attempts", attempts)
    monkeypatch.setattr(Workshop, "continued", continued)
    facts = make(order("journey", tmp_path / "long", width="2"), sums, tiny)
    assert facts["filters"][0]["kept"] == "problems with a right path (of which 5 have a wrong turn)"
    texts = {i.prompt: i.text for i in read(tmp_path / "long" / "data.jsonl")}
    assert texts["3+1="] == f"Jump.\nFly.\n{BACK}\nCount on.\n4"
    assert "0+1=" not in texts
    make(order("journey", tmp_path / "short", width="2", form="shortcut"), sums, tiny)
    assert {i.prompt: i.text for i in read(tmp_path / "short" / "data.jsonl")}["3+1="] == "Count on.\n4"


def test_sentences_of_the_teacher() -> None:
    text = "One. Two!\nThree 3.5"
    assert [text[a:b] for a, b in zip([0, 5, 10], sentence_ends(text), strict=True)] == [
        "One. ",
        "Two!\n",
        "Three 3.5",
    ]
    # four tokens that end after 2, 5, 9 and 19 characters: two in the first sentence, one in each of the others
    means = sentence_logp(np.array([-1.0, -2.0, -3.0, -4.0]), np.array([2, 5, 9, 19]), sentence_ends(text))
    assert means.tolist() == [-1.5, -3.0, -4.0]
    assert np.isnan(sentence_logp(np.array([-1.0]), np.array([2]), [5, 10])[1])
    student = means - np.array([math.log(2), math.log(1.2), -1.0])
    assert teachers_share(means, student, 1.5) == pytest.approx(1 / 3)
    assert teachers_share(means, student, 1.1) == pytest.approx(2 / 3)


def test_of_the_teachers_answers_the_one_with_most_to_learn_is_kept(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.data.recipes import dasd

    seen: list[tuple[str, float]] = []

    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        seen.extend((who, params["temperature"]) for _ in prompts)
        return [f"{'Far. Far.' if i % 2 else 'Near. Far.'} {number(p)}" for i, p in enumerate(prompts)]

    def sentences(policy: Any, items: Any) -> list[Any]:
        """The student finds a sentence with Far e times less likely than the teacher, and others as likely."""
        far = [np.array([float("Far" in s) for s in i.text.split(".")]) for i in items]
        return [np.full(len(f), -1.0) for f in far] if policy is teacher else [-1.0 - f for f in far]

    monkeypatch.setattr(Workshop, "said", said)
    teacher = object()
    monkeypatch.setattr(dasd, "local", lambda shop: teacher)
    monkeypatch.setattr(dasd, "by_sentence", sentences)
    make(order("dasd", tmp_path / "out", candidates="2", temperature="0.6"), sums, tiny, tiny)
    items = read(tmp_path / "out" / "data.jsonl")
    assert len(items) == 6
    assert all(i.text.startswith("Far. Far.") and i.came["teacher_share"] == 0.6667 for i in items)
    assert set(seen) == {("teacher", 0.6)}
    with pytest.raises(UserError, match="name one by --teacher"):
        make(order("dasd", tmp_path / "more"), sums, tiny)


def test_the_teacher_ends_what_the_student_did_not(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def attempts(
        self: Workshop, tasks: Any, samples: int, seed: int = 0, **params: Any
    ) -> list[list[Episode]]:
        """Even ones are ended, odd ones cut off."""
        even = [number(t.prompt) % 2 == 0 for t in tasks]
        return [
            [Episode(t, (), text="abcdefgh", stop="end" if e else "length")]
            for t, e in zip(tasks, even, strict=True)
        ]

    def continued(self: Workshop, pairs: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        assert who == "teacher"
        begun.extend(text for _, text in pairs)
        return ["!"] * len(pairs)

    monkeypatch.setattr(Workshop, "attempts", attempts)
    monkeypatch.setattr(Workshop, "continued", continued)
    make(order("dasd_mixed", tmp_path / "out"), sums, tiny, tiny)
    texts = {i.prompt: i.text for i in read(tmp_path / "out" / "data.jsonl")}
    assert texts["2+1="] == "abcdefgh"
    assert len(begun) == 3
    assert all("abcdefgh".startswith(text) and 4 <= len(text) < 8 for text in begun)
    assert texts["3+1="].endswith("!")


def test_a_beginning_is_gone_on_with_by_the_model_itself(tmp_path: Path, tiny: str, sums: str) -> None:
    """The real thing, once: a model of one layer, which says anything."""
    facts = make(order("dasd_mixed", tmp_path / "out", 2), sums, tiny, tiny)
    assert facts["items"] == 2
    facts = make(order("dasd", tmp_path / "kept", 2, candidates="2"), sums, tiny, tiny)
    assert 0 <= read(tmp_path / "kept" / "data.jsonl")[0].came["teacher_share"] <= 1


def test_a_file_is_a_task_with_an_instruction(tmp_path: Path) -> None:
    shown = [item("ab", "ba"), item("cd", "dc")]
    text, kept = posed("ef", "Turn the letters round.", "Reverse:", shown, 0)
    assert text.splitlines()[0] == "Definition: Turn the letters round."
    assert text.endswith("Example 2\nInput: cd\nOutput: dc\n\nInput: ef\nOutput:")
    assert kept == 2
    assert posed("ef", "", "", [], 0) == ("ef", 0)
    assert posed("ef", "", "Reverse:", shown, 12)[1] == 1, "the last example is left out first"
    assert posed("ef", "", "Reverse:", shown, 1)[1] == 0
    files = []
    for name, answer in (("reverse", "{1}{0}"), ("count", "2")):
        files.append(tmp_path / f"{name}.jsonl")
        words = ("ab", "cd", "ef", "gh")
        rows = [{"prompt": w, "answer": answer.format(*w)} for w in words]
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [str(f) for f in files]
    facts = mix(order("instructed", tmp_path / "out", definitions="Reverse.;Count.", each="2"), names)
    assert facts["stages"] == {"instructed": 4}
    items = read(tmp_path / "out" / "instructed.jsonl")
    assert {i.came["task"]: i.prompt.split("\n")[0] for i in items} == {
        0: "Definition: Reverse.",
        1: "Definition: Count.",
    }
    asked = {i.prompt.rsplit("Input: ", 1)[1] for i in items if i.came["task"] == 0}
    examples = {
        line[7:]
        for i in items
        if i.came["task"] == 0
        for line in i.prompt.splitlines()[:-2]
        if "Input: " in line
    }
    assert not {a.split("\n")[0] for a in asked} & examples, "examples are not trained on"
    plain = mix(order("instructed", tmp_path / "plain", schema="false"), names)
    assert plain["stages"] == {"instructed": 4}
    for changes, says in (
        ({"definitions": "one"}, "holds 1 texts for 2 files"),
        ({"examples": "4"}, "none is left"),
    ):
        with pytest.raises(UserError, match=says):
            mix(order("instructed", tmp_path / "no", **changes), names)


def test_lines_with_the_labels_of_the_model(
    tmp_path: Path, tiny: str, sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        assert params == {"greedy": True}
        return [str(number(p) + 1) if number(p) % 2 else "0" for p in prompts]

    monkeypatch.setattr(Workshop, "said", said)
    facts = make(order("pcp", tmp_path / "own", line="{text} It is {label}."), sums, tiny)
    texts = sorted(i.text for i in read(tmp_path / "own" / "data.jsonl"))
    assert texts[:2] == ["0+1= It is 0.", "1+1= It is 2."]
    assert facts["filters"][0]["left"] == 3, "three of six labels are right"
    held = tmp_path / "held.jsonl"
    held.write_text('{"prompt": "1+1=", "answer": "2"}\n')
    gold = Order("pcp", tmp_path / "gold", 6, str(held), {"pcp.labels": "gold"}, say=lambda text: None)
    make(gold, sums, tiny)
    assert sorted(i.text for i in read(tmp_path / "gold" / "data.jsonl"))[:2] == ["0+1= 1", "2+1= 3"]
    make(order("pcp", tmp_path / "none", labels="none"), sums, tiny)
    assert sorted(i.text for i in read(tmp_path / "none" / "data.jsonl"))[0] == "0+1="
    make(order("pcp", tmp_path / "dealt", labels="dealt"), sums, tiny)
    dealt = [i.came["label"] for i in read(tmp_path / "dealt" / "data.jsonl")]
    assert sorted(dealt) == ["0", "0", "0", "2", "4", "6"]
    with pytest.raises(UserError, match=r"must hold \{text\} and \{label\}"):
        make(order("pcp", tmp_path / "bad", line="{text}"), sums, tiny)


def test_passages_that_mislead_stand_among_others(tmp_path: Path, tiny: str) -> None:
    from etude.data.recipes.mixed_contexts import arranged, sorted_out

    texts, fits = arranged(["a", "b"], ["x"], 5, 0.4, np.random.default_rng(0))
    assert sorted(texts) == ["a", "a", "b", "x", "x"] or sorted(texts) == ["a", "b", "b", "x", "x"]
    assert [t == "x" for t in texts] == [not f for f in fits]
    assert sorted_out([True, False, True]) == "Fit: 1, 3. Do not fit: 2."
    assert sorted_out([False]) == "Fit: none. Do not fit: 1."
    file = tmp_path / "questions.jsonl"
    row = {
        "prompt": "Which tree?",
        "answer": "oak",
        "relevant": ["It is an oak."],
        "misleading": ["It is an elm.", "An ash."],
    }
    file.write_text(json.dumps(row) + "\n")
    changes = {"passages": "4", "shares": "0;0.5;1", "every": "true"}
    make(order("mixed_contexts", tmp_path / "out", **changes), str(file), tiny)
    items = read(tmp_path / "out" / "data.jsonl")
    assert [i.row["difficulty"] for i in items] == [0.0, 0.5, 1.0]
    assert items[0].text == "Fit: 1, 2, 3, 4. Do not fit: none.\noak"
    assert items[1].prompt.count("oak") == 2
    assert items[0].row["answer"] == "oak"
    make(order("mixed_contexts", tmp_path / "labels", target="labels", **changes), str(file), tiny)
    assert read(tmp_path / "labels" / "data.jsonl")[2].text == "Fit: none. Do not fit: 1, 2, 3, 4."
    make(order("mixed_contexts", tmp_path / "plain", target="plain", **changes), str(file), tiny)
    assert read(tmp_path / "plain" / "data.jsonl")[1].text == "oak"
    with pytest.raises(UserError, match="numbers from 0 to 1"):
        make(order("mixed_contexts", tmp_path / "no", shares="2"), str(file), tiny)
    file.write_text('{"prompt": "Which tree?", "answer": "oak"}\n')
    with pytest.raises(UserError, match="has no 'relevant'"):
        make(order("mixed_contexts", tmp_path / "no"), str(file), tiny)
