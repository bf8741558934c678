"""Files of tasks as other tools write them: formats, columns, golds, and what is said of them."""

import json
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.tasks import load
from etude.tasks.answer import Answer
from etude.types import Task


def write(place: Path, *rows: dict | str, name: str = "tasks.jsonl") -> str:
    file = place / name
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), encoding="utf-8")
    return str(file)


def only(spec: str) -> Task:
    (task,) = load(f"{spec}:eval_share=0").sources[0].tasks("train")
    return task


# ---- columns ---------------------------------------------------------------------------------------------

USER = [{"role": "user", "content": "2+2="}]
COLUMNS = {
    "an id": ({"id": 7, "prompt": "2+2=", "answer": "4"}, {"id": 7}),
    "GSM8K": ({"question": "2+2=", "answer": "2+2=<<2+2=4>>4\n#### 4"}, {}),
    "TRL": ({"prompt": USER, "solution": "4"}, {}),
    "TRL completion": ({"prompt": USER, "completion": [{"role": "assistant", "content": "4"}]}, {}),
    "verl": (
        {"data_source": "toy", "prompt": USER, "reward_model": {"ground_truth": "4"}, "extra_info": {"index": 0}},
        {"data_source": "toy", "reward_model": {"ground_truth": "4"}, "extra_info": {"index": 0}},
    ),
    "MATH": ({"problem": "2+2=", "solution": "Add: $\\boxed{4}$.", "level": "Level 1"}, {"level": "Level 1"}),
    "MATH-500": ({"problem": "2+2=", "solution": "Add: $\\boxed{4}$.", "answer": "4"}, {}),
    "alpaca": ({"instruction": "2+2=", "input": "", "output": "4"}, {"input": ""}),
    "messages": ({"messages": [*USER, {"role": "assistant", "content": "4"}]}, {}),
    "AIME": ({"Problem": "2+2=", "Answer": "4", "Year": 2024}, {"Year": 2024}),
    "parts": ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "2+2="}]}], "answer": "4"}, {}),
    "MetaMath": ({"query": "2+2=", "response": "We add.\nThe answer is: 4", "type": "x"}, {"type": "x"}),
    "names of ours": ({"prompt": "2+2=", "answer": 4, "feedback": "good", "source": "web"}, {"feedback_": "good", "source": "web"}),
}  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_of_other_tools(case: str, tmp_path: Path) -> None:
    row, kept = COLUMNS[case]
    task = only(write(tmp_path, row))
    assert [(m.role, m.content) for m in task.prompt] == [("user", "2+2=")]
    assert task.answer == "4"
    assert task.check("The answer is 4.").correct
    assert not task.check("5").correct
    assert {k: task.meta[k] for k in kept} == kept
    if case in ("GSM8K", "MATH", "MATH-500", "MetaMath"):
        assert task.reference is not None
        assert task.check(task.reference).correct


def test_yes_and_no_as_json_writes_them(tmp_path: Path) -> None:
    task = only(write(tmp_path, {"question": "Is 7 prime?", "answer": True}))
    assert task.check("Yes, it is.").correct
    assert not task.check("No.").correct


def test_the_input_of_an_instruction_follows_it(tmp_path: Path) -> None:
    task = only(write(tmp_path, {"instruction": "Add.", "input": "2+2", "output": "4"}))
    assert task.prompt[0].content == "Add.\n\n2+2"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "2+2=4"}, "the field 'prompt' is missing; it may also be called question, problem"),
        ({"prompt": "a", "text": "b"}, "the field 'answer' is missing; it may also be called ground_truth"),
        ({"prompt": "a", "answer": "b", "dificulty": 1}, "unknown field 'dificulty'; did you mean 'difficulty'?"),
        ({"prompt": "a", "answer": "b", "difficulty": 10**400}, "'difficulty' must be a finite number"),
        ('{"prompt": "a", "answer": "b", "answer": "c"}', "the key 'answer' stands twice"),
        ('{"prompt": "a", "answer": ' + "1" * 5000 + "}", "a number of too many digits"),
        ({"prompt": "a", "answer": "Paris", "check": "choice"}, "the gold answer 'Paris' is not a choice"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(row: dict | str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(write(tmp_path, {"prompt": "x", "answer": "y"}, row))
    assert sentence in str(error.value)
    assert "line 2" in str(error.value)


# ---- golds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "reply", "wrong"),
    [
        ("12 apples", "12", "13"), ("$18", "18 dollars", "81"), ("\\frac{1}{2}", "0.5", "2"), ("1/2", "\\frac{1}{2}", "2"),
        ("B", "B) Paris", "C) Rome"), ("B", "The answer is (B).", "(A)"), ("Yes", "Yes.", "No."), ("Paris", "It is Paris.", "Rome"),
        ("0 + 1 = 1", "1", "2"), ("10000", "10,000", "1000"),
    ],
)  # fmt: skip
def test_the_default_serves_golds_of_every_kind(gold: str, reply: str, wrong: str, tmp_path: Path) -> None:
    task = only(write(tmp_path, {"prompt": "q", "answer": gold}))
    assert task.check(reply).correct
    assert not task.check(wrong).correct


def test_a_line_says_which_kinds_of_golds_there_are(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "answer": a} for i, a in enumerate(["1", "2", "B", "Paris"])]
    (note,) = load(write(tmp_path, *rows)).notes
    assert note.endswith("tasks.jsonl: 4 tasks: 2 number, 1 choice, 1 text")
    assert load(write(tmp_path, *rows[:2]) + ":check=text").notes[0].endswith("2 text")


def test_golds_that_no_reply_can_match_are_found_when_the_file_is_read(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}+1", "answer": f"{i} + 1 = {i + 1}"} for i in range(6)]
    with pytest.raises(
        UserError, match=r"6 rows .* \(line 1, line 2, line 3 and 3 more\): the check rejects '0 \+ 1 = 1'"
    ):
        load(write(tmp_path, *rows) + ":check=exact,extract=line")  # fmt: skip


def test_a_program_that_fails_its_own_cases_is_found(tmp_path: Path) -> None:
    row = {
        "prompt": "Double x.",
        "answer": "def f(x):\n    return x",
        "check": "program",
        "function": "f",
        "cases": [[[2], 4]],
    }
    with pytest.raises(UserError, match="gold answer that its own check does not accept"):
        load(write(tmp_path, row))  # fmt: skip


def test_an_answer_of_several_lines_is_noted(tmp_path: Path) -> None:
    tasks = load(write(tmp_path, {"prompt": "q", "answer": "First this.\nThen that."}) + ":eval_share=0")
    assert tasks.sources[0].tasks("train")[0].check("First this.\n\nThen that.").correct
    notes = tasks.notes
    assert "an answer of several lines" in notes[1]


def test_a_row_that_no_tokenizer_reads_is_left_out_and_named(tmp_path: Path) -> None:
    file = write(tmp_path, {"prompt": "a", "answer": "b"}, {"prompt": "half \ud83d", "answer": "b"})
    tasks = load(file + ":eval_share=0")
    assert "1 row left out" in tasks.notes[0]
    assert "line 2 (prompt)" in tasks.notes[0]
    assert len(tasks.sources[0].tasks("train")) == 1
    with pytest.raises(UserError, match="1 row left out"):
        load(write(tmp_path, {"prompt": "half \ud83d", "answer": "b"}))


def test_a_rule_may_still_be_forced(tmp_path: Path) -> None:
    file = write(tmp_path, {"prompt": "q", "answer": "12 apples"})
    check = only(file).check
    assert isinstance(check, Answer)
    (tagged,) = load(f"{file}:eval_share=0,extract=tag").sources[0].tasks("train")
    assert tagged.check("<answer>12</answer>").correct
    assert not tagged.check("12").correct


def test_a_formula_in_place_of_a_number_never_hangs() -> None:
    endless = (
        "9^{9^{9^9}}",
        "((9^9)^9)^9",
        "10^10^10",
        "9^99!",
        "100000!",
        "9!!!!",
        "\\binom{10^9}{5}",
        "(99!)!",
    )
    for formula in (*endless, "9**9**9**9", "\\sqrt{" * 300 + "2" + "}" * 300, "1/" * 3000 + "1"):
        assert not Answer("12")(f"\\boxed{{{formula}}}").correct
        for gold in ("\\frac{\\sqrt{2}}{2}", "x^2+1", "(1, 2)", "2^{100}"):  # compared in this process here
            assert not Answer(gold)(f"\\boxed{{{formula}}}").correct
    assert Answer("2")("\\boxed{\\sqrt{4}}").correct
    assert Answer("2^{3^{4}}")("It is \\boxed{2^{3^{4}}}").correct
    assert Answer("e^{x^2}")("\\boxed{e^{x^{2}}}").correct
    assert Answer("\\frac{1}{2004!}")("\\boxed{\\frac{1}{2004!}}").correct


# ---- formats ---------------------------------------------------------------------------------------------

ROWS = [{"prompt": f"{i}+1=", "answer": str(i + 1), "note": "n"} for i in range(5)]


def formats(place: Path) -> dict[str, str]:
    import pyarrow
    import pyarrow.parquet

    lines = "\n".join(map(json.dumps, ROWS))
    table = "prompt,answer,note\r\n" + "".join(f'"{r["prompt"]}",{r["answer"]},n\r\n' for r in ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), place / "t.parquet")
    texts = {
        "t.ndjson": lines,
        "T.JSONL": lines,
        "t.json": json.dumps(ROWS, indent=1),
        "u.json": lines,
        "v.json": json.dumps({"version": 1, "data": ROWS}, indent=1),
        "t.csv": table,
        "u.csv": table.replace(",", ";"),
    }
    texts["t.tsv"] = table.replace(",", "\t")
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8", newline="")
    return {name: str(place / name) for name in (*texts, "t.parquet")}


@pytest.mark.parametrize(
    "name", ["t.ndjson", "T.JSONL", "t.json", "u.json", "v.json", "t.csv", "u.csv", "t.tsv", "t.parquet"]
)
def test_formats(name: str, tmp_path: Path) -> None:
    tasks = load(formats(tmp_path)[name] + ":eval_share=0").sources[0].tasks("train")
    assert {(t.prompt[0].content, t.answer, t.meta["note"]) for t in tasks} == {
        (r["prompt"], r["answer"], "n") for r in ROWS
    }


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.txt", "x", "has the ending '.txt', which is not read; a file of tasks ends in .jsonl"),
        ("t.parquet", "x", "is not Parquet"),
        ("t.json", '[{"prompt": "a"}]', "item 1: the field 'answer' is missing"),
        ("t.json", "[1]", "item 1 must hold an object"),
        ("t.json", "[", "is not JSON"),
        (
            "t.json",
            '{"train": [{"prompt": "a"}], "test": [{"prompt": "b"}]}',
            "holds several arrays (train, test)",
        ),
        ("t.csv", "prompt,answer\na\n", "line 2 has 1 cells where the header has 2 columns"),
        ("t.csv", "prompt,prompt\na,b\n", "the column 'prompt' stands twice"),
        ("t.csv", 'prompt,answer\n"a"b,c\n', "is not a row of a table"),
        ("t.csv", "prompt,answer\na,\n", "'answer' is empty"),
        ("t.csv", "", "is empty"),
    ],
)
def test_broken_files_get_one_sentence(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(write(tmp_path, content, name=name))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for name, sentence in {
        "mine.parquet": "cannot be read: No such file",
        "/dev/zero": "has no ending",
        str(tmp_path): "holds no file of tasks",
    }.items():
        with pytest.raises(UserError, match=sentence):
            load(name)


# ---- paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["lr=1e-5,seed=0/tasks.jsonl", "a:b/tasks.jsonl", "x=1.jsonl", "a,b.jsonl", "it's.jsonl", "with blank/t.jsonl", "C:\\data\\t.jsonl"],
)  # fmt: skip
def test_paths_may_hold_any_sign(name: str, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "c", "answer": "d"}\n')
    (tmp_path / "other.jsonl").write_text('{"prompt": "e", "answer": "f"}\n')
    monkeypatch.chdir(tmp_path)
    for path in (name, str(file)):
        for spec in (path, f"{path}:check=text", f"gcd,{path}:check=text,eval_share=0.5,lcm:weight=2"):
            kinds = load(spec).kinds
            assert file.stem.split("\\")[-1] in kinds
            assert len(kinds) == (1 if "gcd" not in spec else 3)
        assert len(load(f"other.jsonl:eval={path},check=text").sources[0].tasks("eval")) == 2
        if "'" not in path:
            assert len(load(f"'{path}':check=text").kinds) == 1


def test_home_and_quotes_and_what_is_not_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, {"prompt": "a", "answer": "b"})
    assert load("~/tasks.jsonl").kinds == ("tasks",)
    assert load('"~/tasks.jsonl":as=mine').kinds == ("mine",)
    for spec, sentence in {
        "C:\\data\\tasks.jsonl": r"task file 'C:\\data\\tasks.jsonl' cannot be read: No such file",
        "no/lr=1,seed=0/t.jsonl": "task file 'no/lr=1,seed=0/t.jsonl' cannot be read: No such file",
        "'gcd": "the quote ' is never closed",
        "'gcd'x": "a comma or a colon must follow",
        "gcd:max_value,x=2": "'max_value' must read param=value",
    }.items():
        with pytest.raises(UserError, match=sentence):
            load(spec)
