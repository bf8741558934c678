"""Tasks as they lie: folders, splits, patterns, archives, data sets saved to disk, multiple choice, unit tests, queries, scripts."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pytest

from etude.errors import UserError
from etude.report.preview import drawn, looked_at, screen
from etude.tasks import absolute, load
from etude.tasks.isolate import Pool
from etude.types import Task


def write(place: Path, *rows: dict) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return place


def sums(first: int, n: int = 3) -> list[dict]:
    return [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(first, first + n)]


def asked(spec: str) -> set[str]:
    (source,) = load(spec).sources
    return {t.prompt[-1].content for part in ("train", "eval") for t in source.tasks(part)}


def only(place: Path, *rows: dict, spec: str = "eval_share=0") -> list[Task]:
    return load(f"{write(place / 'tasks.jsonl', *rows)}:{spec}").sources[0].tasks("train")


# ---- where files lie -------------------------------------------------------------------------------------


def test_a_folder_with_splits_asks_for_one(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train-00000-of-00002.jsonl", *sums(0))
    write(tmp_path / "d" / "train-00001-of-00002.jsonl", *sums(10))
    write(tmp_path / "d" / "test.jsonl", *sums(20))
    with pytest.raises(
        UserError, match=r"several splits \(test, train\); choose: '.*:split=train,eval=test'"
    ):
        load(str(tmp_path / "d"))
    assert asked(f"{tmp_path}/d:split=train") == {f"{i}+1=" for i in (0, 1, 2, 10, 11, 12)}
    (source,) = load(f"{tmp_path}/d:split=train,eval=test").sources
    assert {t.prompt[0].content for t in source.tasks("eval")} == {"20+1=", "21+1=", "22+1="}
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        load(f"{tmp_path}/d:split=tset")


def test_configurations_are_folders(tmp_path: Path) -> None:
    write(tmp_path / "d" / "easy" / "train.jsonl", *sums(0))
    write(tmp_path / "d" / "hard" / "train.jsonl", *sums(10))
    with pytest.raises(UserError, match="several configurations"):
        load(f"{tmp_path}/d")
    assert asked(f"{tmp_path}/d:config=hard") == {"10+1=", "11+1=", "12+1="}


def test_a_pattern_and_an_archive(tmp_path: Path) -> None:
    write(tmp_path / "part-1.jsonl", *sums(0))
    write(tmp_path / "part-2.jsonl", *sums(10))
    assert len(asked(f"{tmp_path}/part-*.jsonl")) == 6
    packed = tmp_path / "more.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, sums(30))).encode()))
    assert len(asked(str(packed))) == 3
    assert load(str(packed)).sources[0].name == "more"
    packed.write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read"):
        load(str(packed))


def test_a_folder_by_its_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine" / "part-0.jsonl", *sums(0))
    write(tmp_path / "mine" / "part-1.jsonl", *sums(10))
    write(tmp_path / "gcd" / "part-0.jsonl", *sums(0))
    monkeypatch.chdir(tmp_path)
    assert len(asked("mine")) == 6
    assert absolute("mine:weight=2") == f"{tmp_path}/mine:weight=2"
    assert absolute("gcd") == "gcd", "a generator's name"
    assert load("mine/*.jsonl").sources[0].name == "mine"
    assert load("mine/part-*.jsonl").sources[0].name == "part", "what the names begin with"
    assert load(f"{tmp_path}/mi*/?art-*.jsonl").sources[0].name == "mi"


@pytest.mark.parametrize("several", [True, False])
def test_a_data_set_that_was_saved_to_disk(several: bool, tmp_path: Path) -> None:
    """As `datasets` saves one: Arrow streams beside state.json, a folder a split."""
    for split, first in (("train", 0), ("test", 10)) if several else (("", 0),):
        folder = tmp_path / "d" / split
        folder.mkdir(parents=True)
        table = pyarrow.Table.from_pylist(sums(first))
        with pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        (folder / "state.json").write_text(
            json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
        )
    if several:
        (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert asked(f"{tmp_path}/d:split=train" if several else f"{tmp_path}/d") == {"0+1=", "1+1=", "2+1="}


def test_a_hub_data_set_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def gone(*_: object, **__: object) -> str:
        raise OSError("404 no such data set\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(
        UserError, match=r"no file or folder 'someone/sums', and the hub gave no data set .*: 404"
    ):
        load("someone/sums")


def test_a_hub_data_set_is_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    write(tmp_path / "main" / "train.jsonl", *sums(0))
    write(tmp_path / "main" / "test.jsonl", *sums(10))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    assert asked("someone/sums:split=test,config=main") == {"10+1=", "11+1=", "12+1="}


# ---- columns ---------------------------------------------------------------------------------------------


def test_columns_may_be_named(tmp_path: Path) -> None:
    (task,) = only(
        tmp_path,
        {"ask": "2+2=", "say": "4", "topic": "sums"},
        spec="columns.prompt=ask,columns.answer=say,eval_share=0",
    )
    assert (task.prompt[0].content, task.answer, task.meta["topic"]) == ("2+2=", "4", "sums")
    with pytest.raises(UserError, match=r"no column 'asks' \(columns.prompt\); the row holds ask, say"):
        only(tmp_path, {"ask": "2+2=", "say": "4"}, spec="columns.prompt=asks")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"question": "a?", "problem": "b?", "answer": "c"},
            "the prompt could be 'question' or 'problem'; say which",
        ),
        ({"prompt": "a?", "output": "b", "response": "c"}, "columns.answer=output"),
    ],
)
def test_a_file_that_can_be_read_in_two_ways_asks(row: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        only(tmp_path, row)


def test_what_was_understood_is_said(tmp_path: Path) -> None:
    (note,) = load(str(write(tmp_path / "t.jsonl", *sums(0)))).notes
    assert note.endswith("3 tasks: 3 number (prompt from 'question', answer from 'answer')")
    added = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    (note,) = load(str(write(tmp_path / "alpaca.jsonl", added))).notes
    assert note.endswith("(prompt from 'instruction + input', answer from 'output')")


def test_a_gold_beside_a_conversation_is_the_answer(tmp_path: Path) -> None:
    """What the conversation ends with is then a worked solution; without one it is what a reply must say."""
    talk = [{"role": "user", "content": "2 and 3?"}, {"role": "assistant", "content": "That makes 5."}]
    (task,) = only(tmp_path, {"messages": talk, "gold": 5.0})
    assert (task.answer, task.reference, len(task.prompt)) == ("5.0", "That makes 5.", 1)
    assert task.check("It is 5").correct
    (task,) = only(tmp_path, {"messages": talk, "score": 5.0})
    assert (task.answer, task.reference) == ("That makes 5.", None)
    (note,) = load(str(write(tmp_path / "talk.jsonl", {"messages": talk}))).notes
    assert "(prompt from 'messages', answer from 'the last message')" in note


# ---- multiple choice -------------------------------------------------------------------------------------

FRUIT = ["stone", "apple", "iron", "glass"]
CHOICES = {
    "MMLU": {"question": "Which is a fruit?", "choices": FRUIT, "answer": 1},
    "ARC": {"question": "Which is a fruit?", "choices": {"text": FRUIT, "label": ["A", "B", "C", "D"]}, "answerKey": "B"},
    "ARC with numbers": {"question": "Which is a fruit?", "choices": {"text": FRUIT, "label": ["1", "2", "3", "4"]}, "answerKey": "2"},
    "columns": {"question": "Which is a fruit?", **dict(zip("ABCD", FRUIT, strict=True)), "answer": "B"},
    "options": {"question": "Which is a fruit?", **{f"option_{c}": t for c, t in zip("abcd", FRUIT, strict=True)}, "answer": "apple"},
    "an object": {"question": "Which is a fruit?", "options": dict(zip("ABCD", FRUIT, strict=True)), "answer_idx": "B", "answer": "apple"},
    "endings": {"ctx": "Which is a fruit?", "endings": FRUIT, "label": "1"},
}  # fmt: skip


@pytest.mark.parametrize("form", CHOICES)
def test_multiple_choice(form: str, tmp_path: Path) -> None:
    other = {**CHOICES[form]}
    if form in ("MMLU", "endings"):  # a file of numbers shows in other rows that it counts from 0
        other = {**other, next(n for n in ("answer", "label") if n in other): 0}
    task = only(
        tmp_path, CHOICES[form], {**other, "question" if "question" in other else "ctx": "And a stone?"}
    )
    first = next(t for t in task if "fruit" in t.prompt[0].content)
    assert (
        first.prompt[0].content
        == "Which is a fruit?\n\nA. stone\nB. apple\nC. iron\nD. glass\n\nAnswer with A, B, C or D."
    )
    assert first.answer == "B"
    assert first.check("B) apple").correct
    assert not first.check("A").correct


def test_numbers_that_fit_both_ways_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="whether choices count from 0 or from 1"):
        only(tmp_path, {"question": "Which?", "choices": FRUIT, "answer": 2})
    (task,) = only(tmp_path, {"question": "Which?", "choices": FRUIT, "answer": 4})
    assert task.answer == "D", "four of four counts from 1"
    with pytest.raises(UserError, match="'E', which names none of the choices A, B, C, D"):
        only(tmp_path, {"question": "Which?", "choices": FRUIT, "answer": "E"})


# ---- checks ----------------------------------------------------------------------------------------------

HUMAN = {
    "task_id": "toy/0",
    "prompt": "import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef area(r):\n    \"\"\"The area of a circle.\"\"\"\n",
    "entry_point": "area",
    "canonical_solution": "    return math.pi * r * r\n",
    "test": "def check(candidate):\n    for r in range(3):\n        assert abs(candidate(half(2 * r)) - 3.14159265 * r * r) < 1e-3\n",
}  # fmt: skip
MBPP = {
    "text": "Write a function that doubles.",
    "code": "def twice(x):\r\n  return 2 * x",
    "test_setup_code": "",
    "test_list": ["assert twice(2) == 4", "assert twice([1]) == [1, 1]"],
}
SQL = {
    "prompt": "How many are grown?",
    "check": "sql",
    "setup": "CREATE TABLE p (name TEXT, age INT); INSERT INTO p VALUES ('a', 3), ('b', 30), ('c', 40);",
    "answer": "SELECT COUNT(*) FROM p WHERE age > 18",
}
SCRIPT = {
    "prompt": "Double.",
    "check": "output",
    "inputs": ["2\n", "5\n"],
    "outputs": ["4\n", "10"],
    "answer": "print(2 * int(input()))",
}
SCHEMA = {
    "prompt": "A person.",
    "check": "json_schema",
    "schema": {"type": "object", "required": ["name"]},
    "answer": '{"name": "x"}',
}
REGEX = {"prompt": "A date.", "check": "regex", "pattern": r"\d{4}-\d\d-\d\d", "answer": "2026-11-27"}

CHECKED = {
    "HumanEval goes on": (HUMAN, HUMAN["canonical_solution"], "    return 4 * r\n", "This does not hold: assert abs(candidate"),
    "HumanEval anew": (HUMAN, "```python\ndef area(r):\n    return math.pi * r ** 2\n```", "def area(r):\n    return", "This does not hold"),
    "MBPP": (MBPP, MBPP["code"], "def twice(x):\n    return 4", "This does not hold: assert twice([1]) == [1, 1]"),
    "a program that ends": (MBPP, "def twice(x): return x * 2", "import os\ndef twice(x): os._exit(0)", "twice(2) "),
    "another name": (MBPP, MBPP["code"], "def double(x): return 2 * x", "defines no function twice"),
    "sql": (SQL, "```sql\nselect count(name) from p where not age <= 18;\n```", "SELECT COUNT(*) FROM p", "gives 1 rows"),
    "sql that writes": (SQL, SQL["answer"], "DELETE FROM p", "not authorized"),
    "sql without end": (SQL, SQL["answer"], "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c WHERE x < 0", "interrupted"),
    "sql of a huge value": (SQL, SQL["answer"], "SELECT hex(zeroblob(500000000))", "too big"),
    "sql of many rows": (SQL, SQL["answer"], "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c", "gives more rows"),
    "sql of another file": (SQL, SQL["answer"], "ATTACH '/etc/passwd' AS x", "not authorized"),
    "output": (SCRIPT, "import sys\nprint(int(sys.stdin.read()) * 2)", "print(4)", "it should print '10'"),
    "json": (SCHEMA, '```json\n{"name": 3}\n```', '{"nam": 3}', "'name' is a required property"),
    "no json": (SCHEMA, SCHEMA["answer"], "name: x", "is not JSON"),
    "regex": (REGEX, " 2020-01-02\n", "on 2020-01-02", "must match"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKED)
def test_checks(case: str, tmp_path: Path) -> None:
    row, right, wrong, said = CHECKED[case]
    (task,) = only(tmp_path, row, spec="eval_share=0,feedback=hint")
    with Pool(1) as pool:
        assert pool.run(task.check, right).correct
        verdict = pool.run(task.check, wrong)
    assert not verdict.correct
    assert said in (verdict.feedback or "")


def test_a_program_cannot_read_its_tests(tmp_path: Path) -> None:
    """The results stand in the process of the tests only; frames, files and globals of the program's hold none."""
    spy = (
        "import sys, gc\n"
        "def twice(x):\n"
        "    frame = sys._getframe(1)\n"
        "    while frame:\n"
        "        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
        "            if isinstance(value, str) and 'assert' in value and 'twice' in value: return eval(value.split('==')[1])\n"
        "        frame = frame.f_back\n"
        "    return [o for o in gc.get_objects() if isinstance(o, str) and 'assert twice' in o][:1]\n"
    )
    (task,) = only(tmp_path, MBPP)
    with Pool(1) as pool:
        assert not pool.run(task.check, spy).correct


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**MBPP, "test_list": ["print(twice(2))"]}, "there is no assert in them"),
        ({**HUMAN, "test": "def check(:"}, "unit tests: line 1 cannot be read"),
        ({**MBPP, "code": "def other(x): return x"}, "calls no function that its code defines"),
        ({**SQL, "setup": ""}, "an sql task needs 'setup'"),
        ({**SCRIPT, "outputs": ["4"]}, "lists of equal length"),
        ({**SCHEMA, "schema": {"type": "nothing"}}, "the schema cannot be read"),
        ({**REGEX, "pattern": "("}, "cannot be read"),
        ({**MBPP, "code": "def twice(x):\n    return x"}, "a gold answer that its own check does not accept"),
    ],
)
def test_what_cannot_be_checked_is_refused(row: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        only(tmp_path, row)


def test_tasks_are_shown_as_a_model_will_see_them(tmp_path: Path) -> None:
    tasks = load(f"{write(tmp_path / 't.jsonl', *sums(0), MBPP)}:eval_share=0")
    rows = looked_at(drawn(tasks, 10))
    assert len(rows) == 4
    assert {r["check"] for r in rows} == {"number", "unit tests"}
    assert {(r["gold_accepted"], r["wrong_rejected"]) for r in rows} == {("yes", "yes")}
    assert "checked as number; gold accepted: yes; wrong answer rejected: yes" in screen(rows)
