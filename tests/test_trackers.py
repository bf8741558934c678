"""What other programs get of a run, read back with their own means."""

from __future__ import annotations

import csv
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

import etude
import worlds_of_letters as letters
from etude.errors import UserError
from etude.report import trackers, tracking
from etude.report.run import RunDirectory

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


def train(place: Path, log: str, steps: int = 3, **settings: Any) -> etude.TrainedRun:
    tasks = list(letters.words().sources[0].tasks("train"))
    return etude.train(
        "grpo", letters.model(place), tasks, steps, settings={**SMALL, **settings}, out=place / "run", force=True, progress=False, log=log
    )  # fmt: skip


def rewards(run: etude.TrainedRun) -> list[float]:
    return [m["reward"] for m in run.metrics]


def accuracies(run: etude.TrainedRun) -> list[float]:
    assert run.before is not None
    assert run.after is not None
    return [run.before.mean.mean, run.after.mean.mean]


def test_trackers_are_optional_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.known("") == []
    assert tracking.known("csv, csv") == ["csv"]
    with pytest.raises(UserError, match="no tracker 'tensorbord'; did you mean 'tensorboard'"):
        tracking.known("tensorbord")

    def without(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", without)
    for name in ("wandb", "tensorboard", "mlflow", "trackio"):
        with pytest.raises(UserError, match=rf"pip install 'etude\[{name}\]'"):
            tracking.known(name)


def test_csv_has_a_row_a_step_and_a_row_an_attempt(tmp_path: Path) -> None:
    run = train(tmp_path, "csv")
    with (run.path / "trackers" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3]
    assert [float(row["reward"]) for row in rows[1:]] == rewards(run)
    assert [float(rows[i]["eval/mean"]) for i in (0, 3)] == accuracies(run)
    assert rows[1]["eval/mean"] == ""
    with (run.path / "trackers" / "episodes.csv").open() as file:
        attempts = list(csv.DictReader(file))
    table = run.directory.episodes([1], ["correct", "reward"]).to_pylist()
    assert [row["correct"] for row in attempts] == [str(row["correct"]) for row in table]
    assert all(len(row["question"]) == 4 for row in attempts)


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written after the checkpoint is written again, once."""
    tasks = list(letters.words().sources[0].tasks("train"))
    done = tracking.Trackers.step

    def cut(self: Any, step: int, metrics: Any) -> None:
        done(self, step, metrics)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(tracking.Trackers, "step", cut)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "csv", 4, **{"run.checkpoint_every": 10})
    monkeypatch.undo()
    run = etude.resume(tmp_path / "run", tasks, log="csv", progress=False)
    with (run.path / "trackers" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4]
    assert [float(row["reward"]) for row in rows[1:]] == rewards(run)
    assert [float(rows[i]["eval/mean"]) for i in (0, 4)] == accuracies(run)


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path, "tensorboard")
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    shown = events.Scalars("reward")
    assert [e.step for e in shown] == [1, 2, 3]
    assert [e.value for e in shown] == pytest.approx(rewards(run))
    assert [e.value for e in events.Scalars("eval/mean")] == pytest.approx(accuracies(run))
    assert "time/rollout" in events.Tags()["scalars"]
    (text,) = events.Tensors("episodes/text_summary")
    assert text.tensor_proto.string_val[0].decode().splitlines()[0].startswith("| step | id | kind |")


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train(tmp_path, "wandb")
    (file,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    kept = json.loads((run.path / "trackers" / "wandb.json").read_text())
    assert file.name == f"run-{kept['id']}.wandb"
    ends = time.monotonic() + 20
    while len(history := wandb_history(file)) < 4 and time.monotonic() < ends:
        time.sleep(0.05)  # a process of its own writes it
    assert [row["reward"] for row in history if "reward" in row] == rewards(run)
    assert [row["eval/mean"] for row in history if "eval/mean" in row] == accuracies(run)
    assert [row["episodes/nrows"] for row in history if "episodes/nrows" in row] == [16]


def wandb_history(file: Path) -> list[dict[str, Any]]:
    """What was logged, out of W&B's own file: blocks of 32 KiB with pieces of records, as LevelDB's log has them."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)  # where it keeps its database, unless it is told otherwise
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    run = train(tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    found = client.get_run(json.loads((run.path / "trackers" / "mlflow.json").read_text())["id"])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["settings.max_tokens"] == "2"
    history = client.get_metric_history(found.info.run_id, "reward")
    assert [(m.step, m.value) for m in history] == list(enumerate(rewards(run), 1))
    examined = client.get_metric_history(found.info.run_id, "eval/mean")
    assert [(m.step, m.value) for m in examined] == list(zip((0, 3), accuracies(run), strict=True))
    table = mlflow.artifacts.load_dict(f"{found.info.artifact_uri}/episodes/step-000001.json")
    assert len(table["data"]) == 16
    assert table["columns"][:2] == ["step", "id"]


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = train(tmp_path, "trackio")
    assert capsys.readouterr().out == ""
    from trackio import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("etude")
    assert name.startswith("run-")
    history = SQLiteStorage.get_logs("etude", name)
    assert [row["reward"] for row in history if "reward" in row] == rewards(run)
    assert [row["eval/mean"] for row in history if "eval/mean" in row] == accuracies(run)
    (shown,) = (row["episodes"] for row in history if "episodes" in row)
    assert len(shown["_value"]) == 16


def test_a_tracker_that_fails_is_given_up_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space\nleft")

    monkeypatch.setattr(trackers.CSV, "metrics", full)
    run = train(tmp_path, "csv")
    assert len(run.metrics) == 3
    assert (
        capsys.readouterr().err.count("warning: csv gets nothing more of this run: OSError: no space left")
        == 1
    )


def test_a_tracker_that_cannot_begin_refuses_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class Broken:
        def __init__(self, run: RunDirectory) -> None:
            raise UserError("mlflow cannot be used: no server")

    monkeypatch.setattr(trackers.CSV, "close", lambda self, finished: closed.append(finished))
    monkeypatch.setitem(trackers.KNOWN, "mlflow", Broken)
    monkeypatch.setattr(tracking, "need", lambda module, extra: None)
    with pytest.raises(UserError, match="no server"):
        train(tmp_path, "csv,mlflow")
    assert closed == [False]
