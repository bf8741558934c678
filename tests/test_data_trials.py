"""Data that is made by trying tools out, with a writer that answers by rule."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path
from typing import Any

import pytest

from etude.data.items import read
from etude.data.recipes import draft, ste
from etude.data.session import Order, make
from etude.data.workshop import Scribe
from etude.errors import UserError
from etude.models.tiny import tiny_directory
from etude.tasks.check import Unjudged
from etude.tasks.isolate import Pool
from etude.train.settings import RunSettings
from etude.train.setup import kit_of
from etude.types import Task


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("model") / "tiny"
    return str(tiny_directory(place, string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the writer was asked, one text a conversation; it makes up sums, and calls a calculator wrongly at first."""
    asked: list[str] = []

    async def say(self: Scribe, said: Any, params: Any, key: int) -> str:
        whole = "\n---\n".join(m.content for m in said)
        asked.append(whole)
        last, number = said[-1].content, sum("Make up" in a.rpartition("---")[2] for a in asked)
        if "Make up" in last:
            return f'"What is {number} and {number}?"\n'
        if last.startswith("Now fulfil"):
            return f"<calculator>{number} +</calculator>and more"
        if last.startswith("Result: Error"):
            return f"<calculator>{number} + {number}</calculator>"
        if last.startswith("Result"):
            return f"It is {last.removeprefix('Result: ')}."
        if last == ste.LOOK_BACK:
            return "No" if number == 1 else "Yes"
        if "is the call what the request needs" in last:
            return "No. It helps nobody." if "What is 2 and 2?" in last else "Yes, it does."
        return f"How much is {whole.count('other words')}?"

    monkeypatch.setattr(Scribe, "say", say)
    return asked


def order(place: Path, recipe: str, wanted: int, **changes: Any) -> Order:
    settings = {f"{recipe}.{name}": str(value) for name, value in changes.items()}
    return Order(
        recipe, place, wanted, changes={"run.tools": "calculator", **settings}, say=lambda text: None
    )


def test_what_was_tried_and_accepted_is_written_with_its_call(
    tmp_path: Path, tiny: str, heard: list[str]
) -> None:
    facts = make(order(tmp_path / "out", "ste", 8, episodes=2, trials=2), "", tiny)
    items = read(tmp_path / "out" / "data.jsonl")
    assert [(f["kept"].split(" ")[0], f["of"], f["left"]) for f in facts["filters"][:2]] == [
        ("trials", 4, 4),
        ("trials", 4, 3),
    ]
    assert [i.prompt for i in items if not i.came["reworded"]] == [f"What is {n} and {n}?" for n in (1, 3, 4)]
    assert len(items) == 9, "round(8 / 3) - 1 = 2 further wordings of each"
    assert items[0].row["calls"] == [{"name": "calculator", "arguments": {"expression": "1 + 1"}}]
    assert items[0].row["reference"] == "<calculator>1 + 1</calculator>"
    assert (items[0].row["answer"], items[0].came["result"]) == ("It is 2.", "2")
    assert [i.came["fulfilled"] for i in items if not i.came["reworded"]] == [False, True, True]
    made_up = [a for a in heard if "Make up" in a.rpartition("---")[2]]
    assert "What is 1 and 1? | No" in made_up[1]
    assert "What is 3 and 3? | Yes" in made_up[3]
    assert "It is 2." in made_up[1], "the trials of an episode stand in one chat"
    assert "It is 2." not in made_up[2].replace("| ", ""), "the next episode begins anew"
    assert all(a.count("| No") <= 1 for a in heard), "the list of requests is shown once and does not stay"


def test_without_memory_nothing_is_remembered(tmp_path: Path, tiny: str, heard: list[str]) -> None:
    make(order(tmp_path / "out", "ste", 1, episodes=2, trials=1, memory=False), "", tiny)
    assert not any("and whether they were fulfilled" in a for a in heard)


def test_wordings_so_that_about_as_many_are_made() -> None:
    assert [ste.further(150, kept, 6) for kept in (150, 60, 10, 0)] == [0, 1, 6, 0]


def test_tools_and_tasks_are_asked_for_where_they_are_needed(tmp_path: Path, tiny: str) -> None:
    with pytest.raises(UserError, match="makes items of tools alone; leave --tasks out"):
        make(order(tmp_path / "a", "ste", 1), "chain_sum", tiny)
    with pytest.raises(UserError, match="name some by --tools"):
        make(Order("ste", tmp_path / "b", 1, say=lambda text: None), "", tiny)
    with pytest.raises(UserError, match="dart makes items of tasks; name some by --tasks"):
        make(Order("dart", tmp_path / "c", 1, say=lambda text: None), "", tiny)


# ---- DRAFT -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def drafter(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A writer that tries 1 + 1, 2 + 2, ..., and describes the calculator by what it tried, in words that change at first."""
    asked: list[str] = []
    versions = [
        "It adds.",
        "It adds two numbers and says the sum of both",
        "It adds two numbers and says the sum of both",
    ]

    async def say(self: Scribe, said: Any, params: Any, key: int) -> str:
        asked.append(said[-1].content)
        explored = sum("Make up a request" in a for a in asked)
        if "Make up a request" in asked[-1]:
            number = explored if "is too like" in asked[-1] or explored < 3 else 2
            return f"What is {number} and {number}?\n<calculator>{number} + {number}</calculator>"
        if "What should be changed" in asked[-1]:
            return f"Description: {versions.pop(0)}\nNext: large numbers"
        return "Say what it does."

    monkeypatch.setattr(Scribe, "say", say)
    return asked


def test_documentation_is_written_until_it_hardly_changes(
    tmp_path: Path, tiny: str, drafter: list[str]
) -> None:
    make(order(tmp_path / "out", "draft", 1), "", tiny)
    (item,) = read(tmp_path / "out" / "data.jsonl")
    assert (item.row["tool"], item.text) == ("calculator", "It adds two numbers and says the sum of both")
    assert item.came["rounds"] == 3, "the third version is the second once more"
    assert item.came["likeness"] > 0.99
    explored = [a for a in drafter if "Make up a request" in a]
    assert "Requests so far:\nWhat is 1 and 1?\n\nAdvice: large numbers" in explored[1]
    assert "The request 'What is 2 and 2?' is too like the earlier ones" in explored[3]
    assert "It adds." in explored[1], "the next round reads the new version"
    assert "What came of it:\n4" in "".join(drafter)
    assert "Earlier descriptions:" not in drafter[1]
    assert "Earlier descriptions:" in drafter[4]


def test_no_rounds_leave_the_documentation_as_it_is(tmp_path: Path, tiny: str, drafter: list[str]) -> None:
    make(order(tmp_path / "out", "draft", 1, rounds=0), "", tiny)
    (item,) = read(tmp_path / "out" / "data.jsonl")
    assert "arithmetic" in item.text
    assert not drafter


def test_likeness_is_the_mean_of_bleu_and_cosine() -> None:
    assert draft.likeness("a b c d", "a b c d") == pytest.approx(1.0)
    assert draft.likeness("", "") == 1.0
    assert draft.likeness("", "a") == 0.0
    # BLEU of "a b x d" against "a b c d": 3/4, 1/3, and two smoothed; the cosine is 3/4
    k = 5 / math.log(4)
    smoothed = (3 / 4 * 1 / 3 * (1 / (2 * k) / 2) * (1 / (4 * k) / 1)) ** 0.25
    assert draft.likeness("a b c d", "a b x d") == pytest.approx((smoothed + 3 / 4) / 2)


def test_a_version_and_what_to_try_next_are_read() -> None:
    assert draft.read_version("Well.\nDescription: It adds\nnumbers.\nNext: large ones") == (
        "It adds numbers.",
        "large ones",
    )
    assert draft.read_version("It adds.") == ("", "none"), "the version before stays"


def test_tools_are_told_of_in_the_new_words(tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text(json.dumps({"prompt": "-", "tool": "calculator", "answer": "It adds."}) + "\n")
    with Pool() as pool:
        kit = kit_of(RunSettings(tools="calculator", tool_docs=str(file)), pool)
        session = kit.session(Task((), Unjudged()), 0)
        assert session is not None
        assert session.tools["calculator"].schema["description"] == "It adds."
        kit.close()
        file.write_text('{"prompt": "-", "answer": "It adds."}\n')
        with pytest.raises(UserError, match="columns 'tool' and 'answer'"):
            kit_of(RunSettings(tools="calculator", tool_docs=str(file)), pool)
