"""Programs that people already use to watch runs: TensorBoard, Weights & Biases, MLflow, Trackio, and CSV files."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from etude.errors import UserError
from etude.files import read_json, write_atomically, writing
from etude.report import json_files
from etude.report.run import RunDirectory

PROJECT = "etude"
Rows = Sequence[Mapping[str, Any]]


class Tracker(Protocol):
    """Made with the run's directory. Raises UserError where its package cannot be used."""

    def metrics(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def episodes(self, step: int, rows: Rows) -> None: ...

    def close(self, finished: bool) -> None: ...


def need(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"the {extra} tracker needs a package that is missing; pip install 'etude[{extra}]'"
        ) from None


def _kept(run: RunDirectory, name: str) -> Path:
    """A file of the run's own for what a tracker must remember."""
    place = run.path / "trackers"
    with writing(place):
        place.mkdir(exist_ok=True)
    return place / name


def _identity(run: RunDirectory, tracker: str) -> str:
    """What names this run to a tracker, the same after it was resumed."""
    memory = _kept(run, f"{tracker}.json")
    if not memory.exists():
        json_files.write_json(memory, {"id": secrets.token_hex(4)})
    return str(read_json(memory)["id"])


class TensorBoard:
    """Event files under `<run>/tensorboard`; episodes as text."""

    def __init__(self, run: RunDirectory) -> None:
        need("tensorboard", "tensorboard")
        made = need("torch.utils.tensorboard", "tensorboard").SummaryWriter
        steps = run.steps()
        again = (
            {"purge_step": steps[-1] + 1} if steps else {}
        )  # what a killed session wrote after its checkpoint
        self._writer = made(str(run.path / "tensorboard"), **again)

    def metrics(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def episodes(self, step: int, rows: Rows) -> None:
        self._writer.add_text("episodes", _markdown(rows), step)

    def close(self, finished: bool) -> None:
        self._writer.close()


class WandB:
    """A run of the project `etude`, named after the directory, which a resumed run goes on with."""

    def __init__(self, run: RunDirectory) -> None:
        self._wandb = wandb = need("wandb", "wandb")
        known = _identity(run, "wandb")
        try:
            self._run = wandb.init(
                project=PROJECT,
                name=run.path.name,
                dir=str(run.path),
                config=run.config,
                resume="allow",
                id=known,
            )
        except Exception as error:  # no key, no network: its own classes differ between versions
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"wandb cannot be used: {said}; `wandb login`, or WANDB_MODE=offline") from error

    def metrics(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def episodes(self, step: int, rows: Rows) -> None:
        table = self._wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        self._run.log({"episodes": table}, step=step)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of the experiment `etude` where MLflow's own settings say (MLFLOW_TRACKING_URI)."""

    def __init__(self, run: RunDirectory) -> None:
        self._entities = need("mlflow.entities", "mlflow")
        mlflow = need("mlflow", "mlflow")
        memory = _kept(run, "mlflow.json")
        try:
            self._client = client = mlflow.MlflowClient()
            if memory.exists():
                self._id = str(read_json(memory)["id"])
                client.update_run(self._id, status="RUNNING")
            else:
                found = client.get_experiment_by_name(PROJECT)
                place = found.experiment_id if found else client.create_experiment(PROJECT)
                self._id = client.create_run(place, run_name=run.path.name).info.run_id
                said = dict(_texts({k: run.config[k] for k in ("recipe", "plan", "settings", "stages")}))
                known = [self._entities.Param(_mlflow_name(k), v[:500]) for k, v in said.items()]
                for first in range(0, len(known), 100):  # as many as it takes at once
                    client.log_batch(self._id, params=known[first : first + 100])
        except Exception as error:
            said_ = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"mlflow cannot be used: {said_}; see MLFLOW_TRACKING_URI") from error
        json_files.write_json(memory, {"id": self._id})
        self._tables: list[dict[str, str]] = []

    def metrics(self, step: int, numbers: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        made = [self._entities.Metric(_mlflow_name(k), v, now, step) for k, v in numbers.items()]
        self._client.log_batch(self._id, metrics=made)

    def episodes(self, step: int, rows: Rows) -> None:
        file = f"episodes/step-{step:06d}.json"
        table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
        self._client.log_dict(self._id, table, file)
        self._tables.append({"path": file, "type": "table"})  # its page shows these as tables
        self._client.set_tag(self._id, "mlflow.loggedArtifacts", json.dumps(self._tables))

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


class Trackio:
    """A run of the project `etude`, kept on this machine (`trackio show`)."""

    def __init__(self, run: RunDirectory) -> None:
        self._trackio = need("trackio", "trackio")
        name = f"{run.path.name}-{_identity(run, 'trackio')}"
        how = {"resume": "allow", "embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                self._run = self._trackio.init(project=PROJECT, name=name, config=run.config, **how)
        except Exception as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"trackio cannot be used: {said}") from error

    def metrics(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def episodes(self, step: int, rows: Rows) -> None:
        table = self._trackio.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        self._run.log({"episodes": table}, step=step)

    def close(self, finished: bool) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


class CSV:
    """`metrics.csv` and `episodes.csv` under `<run>/trackers`, for spreadsheets."""

    def __init__(self, run: RunDirectory) -> None:
        self._file, self._table = _kept(run, "metrics.csv"), _kept(run, "episodes.csv")
        last = (run.steps() or [0])[-1]
        self._rows = [row for row in _read_csv(self._file) if int(row["step"]) <= last]
        self._episodes: list[Mapping[str, Any]] = [
            row for row in _read_csv(self._table) if int(row["step"]) <= last
        ]

    def metrics(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._rows and int(self._rows[-1]["step"]) == step:
            self._rows[-1] = {**self._rows[-1], **numbers}
        else:
            self._rows.append({"step": step, **numbers})
        write_atomically(self._file, _csv(self._rows))

    def episodes(self, step: int, rows: Rows) -> None:
        self._episodes += rows
        write_atomically(self._table, _csv(self._episodes))

    def close(self, finished: bool) -> None: ...


KNOWN: dict[str, Callable[[RunDirectory], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
    "csv": CSV,
}


def _markdown(rows: Rows) -> str:
    def cell(value: Any) -> str:
        return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")

    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def _csv(rows: Rows) -> str:
    out = io.StringIO()
    table = csv.DictWriter(
        out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    return out.getvalue()


def _read_csv(file: Path) -> list[Mapping[str, Any]]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _texts(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, str(value)


def _mlflow_name(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)
