"""Data that is made by trying tools out, with a writer that answers by rule."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest

from etude.data.items import read
from etude.data.recipes import ste
from etude.data.session import Order, make
from etude.data.workshop import Scribe
from etude.errors import UserError
from etude.models.tiny import tiny_directory


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
