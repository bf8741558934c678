"""`etude eval` examines the file that it is given; prompts that are too long are left out and counted."""

import json
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.errors import UserError
from etude.tasks.asked import asked
from etude.train.measure import Exam, evaluate_model, exam_tasks
from etude.train.setup import start


def write(file: Path, words: list[str]) -> str:
    file.write_text("\n".join(json.dumps({"prompt": w, "answer": w[0]}) for w in words))
    return str(file)


WORDS = [a + b + c for a in "abcd" for b in "abcd" for c in "abcd"]


@pytest.mark.parametrize("n", [1, 2, 64])
def test_all_of_the_file_is_examined(n: int, tmp_path: Path, capsys) -> None:
    name, problems = exam_tasks(write(tmp_path / "test.jsonl", WORDS[:n]), None, None)
    assert len(problems) == n
    assert f"{n} tasks: {n} " in capsys.readouterr().err
    assert len(exam_tasks(name, None, 1)[1]) == 1
    model = letters.model(tmp_path)
    assert evaluate_model(model, Exam(name, problems[:1], 2, 0)).to_dict()["problems"] == 1


def test_a_part_that_was_named_is_examined_alone(tmp_path: Path) -> None:
    file, other = write(tmp_path / "a.jsonl", WORDS[:40]), write(tmp_path / "b.jsonl", WORDS[40:50])
    assert len(exam_tasks(f"{file}:eval={other}", None, None)[1]) == 10
    assert len(exam_tasks(f"{file}:eval_share=0.5", None, None)[1]) == 20


def test_what_a_run_trains_on_is_left_out(tmp_path: Path, capsys) -> None:
    file = write(tmp_path / "a.jsonl", WORDS[:40])
    plan = letters.plan(tmp_path, "grpo", 1).but(tasks=file)
    run = start(plan, tmp_path / "run")
    train = {asked(t) for t in run.tasks.sources[0].tasks("train")}
    run.close()
    _, problems = exam_tasks(file, None, None, [str(tmp_path / "run")])
    assert len(problems) == 8
    assert not train & {asked(t) for t in problems}
    assert "32 of 40 tasks are left out" in capsys.readouterr().err


def test_long_prompts_are_left_out_and_counted(tmp_path: Path, capsys) -> None:
    file = write(tmp_path / "a.jsonl", [*WORDS[:30], "abcd" * 2000, "dcba" * 2000])
    run = start(letters.plan(tmp_path, "grpo", 1).but(tasks=file), tmp_path / "run")
    (source,) = run.tasks.sources
    assert source.size == 30
    assert all(len(t.prompt[0].content) < 10 for part in ("train", "eval") for t in source.tasks(part))
    assert "2 of 32 tasks have prompts that do not fit" in capsys.readouterr().err
    assert all(len(t.prompt[0].content) < 10 for t in run.holdout)
    run.close()
    with pytest.raises(UserError, match=r"raise run\.context"):
        start(
            letters.plan(tmp_path, "grpo", 1).but(
                tasks=write(tmp_path / "b.jsonl", ["abcd" * 2000, "d" * 9000])
            ),
            tmp_path / "other",
        )
    assert not (tmp_path / "other").exists()
