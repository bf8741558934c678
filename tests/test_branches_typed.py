"""A run that goes on otherwise than it began, as a user types it."""

import json
from pathlib import Path

import pytest

import etude
import worlds_of_letters as letters
from etude import cli
from etude.errors import UserError
from etude.report.run import RunDirectory
from etude.train import checkpoint
from test_branches import SMALL


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a model, a file of tasks and a finished run of two steps, made by the command line."""
    letters.model(tmp_path)
    rows = [{"prompt": w, "answer": w[0], "check": "exact", "hints": ["h"]} for w in map("".join, _pairs())]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    sets = [
        f"run.{s}"
        for s in ("precision=fp32", "max_tokens=2", "tasks_per_step=4", "group_size=4", "eval_problems=4")
    ]
    options = [
        o for s in [*sets, "run.eval_samples=2", "run.preflight=2", "update.lr=1e-3"] for o in ("--set", s)
    ]
    assert (
        cli.run(
            [
                "train",
                "grpo",
                "-m",
                "model",
                "-t",
                "t.jsonl",
                "--steps",
                "2",
                "--out",
                "r",
                "--force",
                *options,
            ]
        )
        == 0
    )
    return tmp_path


def _pairs() -> list[tuple[str, str]]:
    return [(a, b) for a in letters.LETTERS for b in letters.LETTERS]


def said(capsys, *command: str) -> str:
    assert cli.run(["resume", "r", "-q", *command]) == 2
    return capsys.readouterr().err


def test_the_command_line_lengthens_and_changes(typed: Path, capsys) -> None:
    assert cli.run(["resume", "r", "-q", "--steps", "+2", "--set", "update.lr=1e-4"]) == 0
    shown = capsys.readouterr().out
    assert "grpo: 4 steps" in shown
    assert "from step 2 on" in shown
    assert "update.lr 0.001 -> 0.0001, budget 2 steps -> 4 steps" in shown
    assert cli.run(["resume", "r", "-q", "--budget", "6-steps"]) == 0
    assert "--steps is 'ten'" in said(capsys, "--steps", "ten")
    assert "either --steps or --budget" in said(capsys, "--steps", "9", "--budget", "1m")


def test_a_run_is_resumed_from_another_directory(typed: Path, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert cli.run(["resume", str(typed / "r"), "-q", "--steps", "+1"]) == 0
    assert cli.run(["eval", str(typed / "r"), "-t", str(typed / "t.jsonl"), "-k", "1"]) == 0


def test_a_run_on_another_machine_is_told_where_things_lie(typed: Path, capsys) -> None:
    (typed / "model").rename(typed / "M")
    assert "lies no longer at" in (found := said(capsys))
    assert "etude resume r --model PATH" in found
    (typed / "t.jsonl").rename(typed / "T.jsonl")
    assert "etude resume r --tasks FILE" in said(capsys, "-m", "M")
    given = ("-m", "M", "-t", "T.jsonl:as=t")
    assert cli.run(["resume", "r", "-q", "--steps", "+1", *given]) == 0
    assert cli.run(["resume", "r", "-q", "--steps", "+1"]) == 0, "it knows where they lie now"
    changed = RunDirectory.open("r").config["history"][0]["changed"]
    assert changed["model"] == [str(typed / "model"), str(typed / "M")]


def test_another_model_is_no_replacement(typed: Path, capsys) -> None:
    letters.model(typed / "wide", width=128)
    assert "(another architecture)" in said(capsys, "-m", str(typed / "wide" / "model"))
    letters.model(typed / "other", seed=9)
    assert cli.run(["resume", "r", "-q", "--steps", "+1", "-m", str(typed / "other" / "model")]) == 0
    assert "other weights than the run began with; the checkpoint's are used" in capsys.readouterr().err


EDITS = {
    "seed": (("plan", "seed"), 3, "plan.seed was 0, is 3"),
    "rate": (("plan", "changes", "update.lr"), "1e-9", "plan.changes.update.lr was '1e-3', is '1e-9'"),
    "stage": (("stages", "update", "lr"), 1e-9, "stages.update.lr was 0.001, is 1e-09"),
}


@pytest.mark.parametrize("case", list(EDITS))
def test_an_edited_record_is_refused(case: str, typed: Path, capsys) -> None:
    where, value, wanted = EDITS[case]
    config = json.loads((typed / "r" / "config.json").read_text())
    part = config
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = value
    (typed / "r" / "config.json").write_text(json.dumps(config))
    found = said(capsys)
    assert f"'r/config.json' was edited ({wanted})" in found
    assert "--set" in found


TASKS = {
    "hints": ({"hints": ["other"]}, "other hints"),
    "reference": ({"reference": "why"}, "other references"),
    "difficulty": ({"difficulty": 3}, "other difficulties"),
    "check": ({"check": "text"}, "other checks"),
    "column": ({"unit": "m"}, "other columns"),
}


@pytest.mark.parametrize("case", list(TASKS))
def test_changed_tasks_are_noticed(case: str, typed: Path, capsys) -> None:
    more, wanted = TASKS[case]
    held = set(checkpoint.load(typed / "r" / "checkpoints")[1]["holdout"]["keys"])
    file = typed / "t.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    from etude.tasks import load

    aside = {t.prompt[0].content for t in load(str(file)).sources[0].tasks("eval") if t.key in held}
    trained = next(r for r in rows if r["prompt"] not in aside)
    trained |= more
    file.write_text("\n".join(map(json.dumps, rows)))
    found = said(capsys, "--steps", "+1")
    assert f"not those that the run was started with ({wanted})" in found
    assert "--changed-tasks" in found
    assert cli.run(["resume", "r", "-q", "--steps", "+1", "--changed-tasks"]) == 0
    assert f"tasks' content as at the start -> {wanted}" in capsys.readouterr().out
    asked = next(r for r in rows if r["prompt"] in aside)
    asked |= {"check": "text"}
    file.write_text("\n".join(map(json.dumps, rows)))
    assert "the held-out problems of 't.jsonl' are not those" in said(
        capsys, "--steps", "+1", "--changed-tasks"
    )


def test_another_arithmetic_is_told_and_recorded(typed: Path, capsys, monkeypatch) -> None:
    from etude.train import identity

    monkeypatch.setattr(identity, "instructions", lambda: ["avx2", "amx_bf16"])
    assert cli.run(["resume", "r", "-q", "--steps", "+1"]) == 0
    shown = capsys.readouterr().err
    assert (
        "this machine computes otherwise than the one that wrote the checkpoint (instructions was '" in shown
    )
    assert "from step 2 on the run is not bit for bit" in shown
    (entry,) = RunDirectory.open("r").config["history"]
    assert entry["changed"]["instructions"][1] == "avx2 amx_bf16"
    assert cli.run(["resume", "r", "-q"]) == 0
    assert "computes otherwise" not in capsys.readouterr().err


def test_training_goes_on_from_a_run(typed: Path, capsys) -> None:
    command = [
        "train",
        "grpo",
        "-m",
        "r",
        "-t",
        "t.jsonl",
        "--steps",
        "1",
        "-q",
        "--force",
        "--set",
        "run.max_tokens=2",
    ]
    assert cli.run([*command, "--out", "r2"]) == 0
    config = RunDirectory.open("r2").config
    assert config["plan"]["model"] == "r"
    assert config["places"]["model"] == str(typed / "r" / "model")
    capsys.readouterr()
    more = ["--set", "run.eval_problems=100"]
    (typed / "u.jsonl").write_text("\n".join(reversed((typed / "t.jsonl").read_text().splitlines()[:9])))
    assert cli.run([*command[:5], "u.jsonl:eval_share=0.5", *command[6:], *more, "--out", "r3"]) == 0
    assert "held-out problems are left out: " in capsys.readouterr().err
    import shutil

    shutil.rmtree(typed / "r" / "model")
    assert cli.run([*command, "--out", "r4"]) == 2
    assert (
        "the run 'r' has saved no model yet; go on with it to its end: etude resume r"
        in capsys.readouterr().err
    )


def test_the_same_from_python(tmp_path: Path) -> None:
    tasks = list(letters.words().sources[0].tasks("train"))
    small = {k.replace("__", "."): v for k, v in SMALL.items()} | {
        "run.precision": "fp32",
        "run.max_tokens": 2,
    }
    place = {"model": letters.model(tmp_path), "out": tmp_path / "run"}
    run = etude.train("grpo", tasks=tasks, budget=2, settings=small, force=True, progress=False, **place)
    longer = etude.resume(run, tasks, budget="+2-steps", settings={"update.lr": 1e-6}, progress=False)
    assert len(longer.metrics) == 4
    assert longer.after.card.step == 4
    (entry,) = longer.directory.config["history"]
    assert entry["changed"]["update.lr"] == [1e-5, 1e-6]
    back = etude.resume(run, tasks, from_step=2, progress=False)
    assert len(back.metrics) == 4
    with pytest.raises(UserError, match="has spent 4 steps already"):
        etude.resume(run, tasks, budget="3-steps")
