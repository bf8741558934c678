"""Demonstrations with calls, read from files in the forms of others: what of them is imitated, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from etude.credit.imitate import shown
from etude.errors import UserError
from etude.rollout.demonstrate import solution
from etude.tasks import load
from etude.tasks.check import Unjudged
from etude.tasks.traces import TRACE
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Group, Request
from test_tools import renderer
from test_worlds_tools import CALLING
from worlds_of_letters import plan

TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object", "properties": {k: {"type": "string"}}}}}
    for name, k in (("weather", "city"), ("time", "zone"))
]  # fmt: skip


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": f"c{name}", "function": {"name": name, "arguments": arguments}}


SAID: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Oslo?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("weather", city="Oslo"), call("time", zone="CET")],
    },
    {"role": "tool", "tool_call_id": "cweather", "content": "rain"},
    {"role": "tool", "tool_call_id": "ctime", "content": "noon"},
    {"role": "assistant", "content": "Rain at noon."},
]
OPENAI = [
    {**m, "tool_calls": [{**c, "function": {**c["function"], "arguments": json.dumps(c["function"]["arguments"])}} for c in m["tool_calls"]]}
    if "tool_calls" in m
    else m
    for m in SAID
]  # fmt: skip
ROWS = {
    "messages": {"messages": SAID, "tools": TOOLS},
    "openai": {"messages": OPENAI, "tools": json.dumps(TOOLS)},
    "trl": {"prompt": SAID[:2], "completion": SAID[2:], "tools": [t["function"] for t in TOOLS]},
}


def read(place: Path, *rows: dict[str, Any], spec: str = "") -> list[Any]:
    file = place / "traces.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (source,) = load(f"{file}:eval_share=0{spec}").sources
    return source.tasks("train")


@pytest.mark.parametrize("form", ROWS)
def test_the_forms_of_others_are_one_task(form: str, tmp_path: Path) -> None:
    (task,) = read(tmp_path, ROWS[form])
    assert [(m.role, m.content) for m in task.prompt] == [("system", "Be brief."), ("user", "Oslo?")]
    assert task.answer == "Rain at noon."
    assert task.meta["calls"] == [
        {"name": "weather", "arguments": {"city": "Oslo"}},
        {"name": "time", "arguments": {"zone": "CET"}},
    ]
    assert [t.role for t in task.meta[TRACE].turns] == ["assistant", "tool", "tool", "assistant"]
    assert [t["name"] for t in task.meta[TRACE].tools] == ["weather", "time"]


def rows_of(task: Any, made: Any) -> tuple[list[tuple[str, str]], Any]:
    """(who, text) of every span of the demonstration, and the trained tokens, as a row of bool."""
    episode = solution(task, made)
    (signal,) = shown([Group(task, (), Request(), (), (episode,))])
    return [(s.role, made.tokenizer.decode(s.tokens, special=True)) for s in episode.spans], (
        signal.weights["imitation"] > 0,
        episode,
    )


def test_token_rows_under_a_template_that_writes_calls(tmp_path: Path) -> None:
    (task,) = read(tmp_path, ROWS["openai"])
    spans, (trained, episode) = rows_of(task, renderer(tmp_path / "m", CALLING))
    asked, calls, results, answer = spans
    assert '"name": "weather"' in asked[1]
    assert asked[1].endswith("<system>Be brief.<end><user>Oslo?<end><assistant>")
    assert calls == (
        "assistant",
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
        '<tool_call>{"name": "time", "arguments": {"zone": "CET"}}</tool_call><end>',
    )
    assert results == ("tool", "<user>[rain]<end><user>[noon]<end><assistant>")
    assert answer == ("assistant", "Rain at noon.<end>")
    row = np.concatenate([np.full(len(s), s.role == "assistant") for s in episode.spans])
    assert np.array_equal(trained, row)


def test_token_rows_where_a_reply_pauses_after_each_call(tmp_path: Path) -> None:
    (task,) = read(tmp_path, ROWS["messages"])
    spans, (trained, episode) = rows_of(task, renderer(tmp_path / "m", None))
    assert [who for who, _ in spans] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert "<weather>city</weather>" in spans[0][1]
    assert [text.strip() for _, text in spans[1::2]][:2] == [
        "<weather>Oslo</weather>",
        "<time>CET</time>",
    ] or [text.partition("</")[0] for _, text in spans[1:4:2]] == ["<weather>Oslo", "<time>CET"]
    assert spans[2][1].strip() == "Result: rain"
    row = np.concatenate([np.full(len(s), s.role == "assistant") for s in episode.spans])
    assert np.array_equal(trained, row)


def test_what_was_understood_is_said(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(ROWS["trl"]) + "\n" + json.dumps({"prompt": "a?", "answer": "b"}))
    (source,) = load(f"{file}:eval_share=0").sources
    assert any("2 tasks: 2 text; 1 demonstrated by a trace" in note for note in source.notes)


def test_a_row_that_ends_with_a_call_is_not_checked(tmp_path: Path) -> None:
    task, other = read(tmp_path, {"messages": SAID[:3], "tools": TOOLS}, ROWS["trl"])
    assert task.answer is None
    assert isinstance(task.check, Unjudged)
    spans, _ = rows_of(task, renderer(tmp_path / "m", CALLING))
    assert [who for who, _ in spans] == ["user", "assistant"]
    assert task.key != other.key


def test_columns_that_tables_fill_in_are_no_arguments(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(
        [{"messages": [{**m, "tool_calls": m.get("tool_calls")} for m in SAID], "tools": json.dumps(TOOLS)}]
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    (source,) = load(f"{tmp_path / 't.parquet'}:eval_share=0").sources
    (task,) = source.tasks("train")
    assert task.meta["calls"][0] == {"name": "weather", "arguments": {"city": "Oslo"}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": SAID, "tools": TOOLS[:1]}, "line 1: 'time' is called, which 'tools' does not describe"),
        ({"messages": SAID[2:], "tools": TOOLS}, "no message of the user stands before the first call"),
        ({"messages": [*SAID[:2], {"role": "assistant", "tool_calls": [{"function": {"name": 3}}]}]}, "message 3: a call needs"),
        ({"messages": [*SAID[:3], {"role": "function", "content": "x"}]}, "message 4: the role must be"),
        ({"messages": [*SAID[:5], {"role": "assistant", "content": ""}]}, "message 6: it says nothing"),
        ({"messages": SAID, "tools": "["}, "'tools' is no JSON"),
        ({"messages": SAID, "tools": [{"type": "function"}]}, "'tools' must be a list of functions"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path, row)


def test_calls_of_which_nobody_tells_are_an_error_and_no_guess(tmp_path: Path) -> None:
    (task,) = read(tmp_path, {"messages": SAID})
    with pytest.raises(ValueError, match="calls 'time', of which neither its row"):
        solution(task, renderer(tmp_path / "m", CALLING))


def test_a_run_imitates_them(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        "".join(
            json.dumps({**ROWS["trl"], "prompt": [{"role": "user", "content": c}]}) + "\n" for c in "abcd"
        )
    )
    run = start(
        plan(tmp_path, "sft", 1, run__eval_problems=0),
        tmp_path / "run",
        load(f"{tmp_path / 't.jsonl'}:eval_share=0"),
    )
    train(run)
    run.close()
    (row, *_) = run.directory.episodes().to_pylist()
    assert [s["role"] for s in row["spans"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert run.directory.metrics()[0]["errors"] == 0
