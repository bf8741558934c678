"""What runs there are, what two of them have different, and an end of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import etude
import worlds_of_letters as letters
from etude.cli import run as cli
from etude.errors import Refused
from etude.report.listing import facts
from etude.report.lock import Lock, holder
from etude.report.run import is_run
from etude.types import Task, Verdict

SMALL = {
    "run.precision": "fp32",
    "run.max_tokens": 2,
    "run.tasks_per_step": 4,
    "run.group_size": 4,
    "run.eval_problems": 4,
    "run.eval_samples": 2,
    "run.preflight": 4,
    "update.lr": 2e-3,
}


def train(place: Path, name: str, recipe: str = "grpo", tasks: Any = None, **settings: Any) -> Path:
    given = list(letters.words().sources[0].tasks("train")) if tasks is None else tasks
    model = place / "model"
    return etude.train(
        recipe,
        str(model) if model.exists() else letters.model(place),
        given,
        2,
        settings=SMALL | {k.replace("__", "."): v for k, v in settings.items()},
        out=place / "runs" / name,
        force=True,
        progress=False,
    ).path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of different settings."""
    place = tmp_path_factory.mktemp("runs")
    train(place, "first")
    train(place, "second", "rloo", update__lr=1e-3)
    return place / "runs"


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be changed, in which the test runs."""
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_a_table_of_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["runs"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["run", "recipe", "model", "tasks", "steps"]
    for row, name, recipe in zip(rows, ("first", "second"), ("grpo", "rloo"), strict=True):
        run = etude.load(folder / name)
        after = run.after.mean
        said = f"{100 * run.before.mean.mean:.1f}% -> {100 * after.mean:.1f}% [{100 * after.low:.1f}, "
        assert said in row
        assert row.split()[:2] == [f"runs/{name}", recipe]
        assert "  2/2  " in row
        assert "  finished  " in row
    assert cli(["runs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(row["path"]).name for row in found] == ["first", "second"]


def test_it_fits_into_60_columns(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert cli(["runs"]) == 0
    assert cli(["diff", "runs/first", "runs/second"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "runs/second" in lines
    assert max(map(len, lines)) <= 60
    assert not [line for line in lines if "\x1b" in line]


def test_how_a_run_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finished; at work in this process; cut off; refused, with the reason; unreadable."""
    run = folder / "first"
    assert facts(run)["state"] == "finished"
    with Lock(run):
        assert holder(run) == str(os.getpid())
        assert facts(run)["state"] == "running"
    assert facts(run)["state"] == "finished"
    (run / "ended.json").unlink()
    assert facts(run)["state"] == "finished"  # as an earlier version left it
    shutil.rmtree(run / "model")
    (run / "evals.jsonl").unlink()
    assert facts(run)["state"] == "interrupted"
    (run / "config.json").write_text("{")
    assert facts(run)["state"] == "broken"
    assert cli(["runs"]) == 0
    assert "runs/first: 'runs/first/config.json'" in capsys.readouterr().out.replace(
        str(folder.parent) + "/", ""
    )


def test_a_run_that_was_refused_on_the_way_says_why(tmp_path: Path) -> None:
    def never(answer: str) -> Verdict:
        return Verdict(0.0, False)

    tasks = [Task(t.prompt, never, kind=t.kind) for t in letters.words().sources[0].tasks("train")]
    with pytest.raises(Refused, match="no signal"):
        train(tmp_path, "dry", tasks=tasks, run__patience=1, run__skip_preflight=True)
    found = facts(tmp_path / "runs" / "dry")
    assert found["state"] == "refused"
    assert "no signal for 1 steps" in found["why"]


def test_a_run_that_goes_on_is_no_longer_at_its_end(tmp_path: Path) -> None:
    run = train(tmp_path, "mine")
    assert json.loads((run / "ended.json").read_text()) == {"state": "finished", "why": "budget spent"}
    tasks = list(letters.words().sources[0].tasks("train"))
    seen = []
    original = etude.report.run.RunDirectory.write_end  # type: ignore[attr-defined]

    def watched(self: Any, state: str, why: str) -> None:
        seen.append((run / "ended.json").exists())
        original(self, state, why)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etude.report.run.RunDirectory.write_end", watched)
        etude.resume(run, tasks, progress=False)
    assert seen == [False]


def test_folders_without_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["runs"]) == 2
    assert capsys.readouterr().err == "etude: 'runs' is not a directory; name a folder that holds runs\n"
    assert cli(["runs", "."]) == 0
    assert capsys.readouterr().out == "no runs in '.'\n"


def test_what_two_runs_have_different(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["diff", "runs/first", "runs/second", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"] == {"recipe": ["grpo", "rloo"]}
    assert found["settings"]["update.lr"] == [2e-3, 1e-3]
    assert "run.max_tokens" not in found["settings"]
    assert found["environment"] == {}
    assert found["verdict"].startswith("second - first: ")
    assert cli(["diff", "runs/first", "runs/first"]) == 0
    said = capsys.readouterr().out
    for section in ("plan", "settings", "environment", "results"):
        assert f"{section}: no difference" in said
    assert "second - first: +0.0 points" in said
    assert cli(["diff", "runs/first", "runs/third"]) == 2


def test_runs_are_deleted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["rm", "runs/first"]) == 2
    assert "where nobody can be asked, --yes is needed" in capsys.readouterr().err
    (folder / "first" / "notes.txt").write_text("mine")
    assert cli(["rm", "runs/first", "runs/second", "runs/first", "--yes"]) == 0
    said = capsys.readouterr().out
    assert said == "deleted: runs/first; what is no part of it stays: notes.txt\ndeleted: runs/second\n"
    assert [p.name for p in (folder / "first").iterdir() if p.name != ".lock"] == ["notes.txt"]
    assert not (folder / "second").exists()


def test_no_is_an_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert cli(["rm", "runs/first"]) == 0
    assert is_run(folder / "first")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert cli(["rm", "runs/first"]) == 0
    assert not (folder / "first").exists()


def test_what_is_no_run_or_in_use_is_not_deleted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "other").mkdir()
    assert cli(["rm", "runs/first", "runs/other", "--yes"]) == 2
    assert "'runs/other' is not a run" in capsys.readouterr().err
    with Lock(folder / "second"):
        assert cli(["rm", "runs/first", "runs/second", "--yes"]) == 2
    assert f"process {os.getpid()} is at work on" in capsys.readouterr().err
    with Lock(folder, "comparison"):  # that the run is an arm of
        assert cli(["rm", "runs/first", "--yes"]) == 2
    assert is_run(folder / "first")
    assert is_run(folder / "second")
