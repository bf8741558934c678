"""A run as a directory of facts. The training loop writes it, everything else reads it.

config.json     the resolved plan                 card.json     versions, commit, machine
metrics.jsonl   one object per step               evals.jsonl   one object per evaluation
findings.jsonl  health findings                   episodes/     step-000012.parquet, one row per attempt
written.jsonl   tasks that a model wrote, and what became of them
checkpoints/    what `train.checkpoint` writes    report.html   the page
ended.json      how the last session ended        trackers/     copies of the metrics for other programs
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etude.curriculum.written import News
from etude.errors import UserError
from etude.files import read_json, write_atomically, writing
from etude.report import json_files, rows, written
from etude.report.lock import NAME, Lock, holder
from etude.report.suspects import COLUMNS, suspects
from etude.types import Group, Signal

LINES = ("metrics.jsonl", "evals.jsonl", "findings.jsonl", "written.jsonl")
OWN = {
    "config.json",
    "card.json",
    *LINES,
    "episodes",
    "checkpoints",
    "model",
    "ended.json",
    "tensorboard",
    "trackers",
    "wandb",
    "report.html",
}
STEP_FILE = re.compile(r"step-(\d+)\.parquet")


def is_run(path: str | Path) -> bool:
    """Whether an etude run lies at `path`: its plan is written last, so a plan means a whole run."""
    return (Path(path) / "config.json").is_file() and (Path(path) / "card.json").is_file()


class Facts(dict[str, Any]):
    """What a JSON file of a run holds. What is missing, or no object where one belongs, is a UserError."""

    def __init__(self, path: Path) -> None:
        found = read_json(path)
        if not isinstance(found, dict):
            raise UserError(f"'{path}' is damaged: it holds no JSON object")
        for name in ("plan", "settings", "stages"):
            if not isinstance(found.get(name, {}), dict):
                raise UserError(f"'{path}' is damaged: its {name} is no object")
        super().__init__(found)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise UserError(f"'{self._path}' is damaged: it lacks '{name}'")


class RunDirectory:
    """One run on disk. Build it with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Lock | None = None  # held while the run is written
        self._begin: Callable[[], None] | None = None  # what is left to do of a creation that waits
        self._pieces: dict[int, str] = {}  # text of single tokens, by id

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        card: Mapping[str, Any],
        *,
        overwrite: bool = False,
        wait: bool = False,
    ) -> RunDirectory:
        """Begins a run at `path` and locks it. Raises UserError when another run lies there (unless `overwrite`, which
        deletes that run), or when the directory holds anything that is not a run. A run of the same plan that was cut
        off before its first checkpoint holds nothing, and is begun again. `wait`: nothing is deleted or written before
        `begin`."""
        path = Path(path)
        check_free(path, config, overwrite)
        directory = cls(path)
        directory.lock()
        try:
            check_free(path, config, overwrite)  # another process may have been faster

            def begin() -> None:
                _remove(path, OWN)
                with writing(path):
                    (path / "episodes").mkdir(parents=True, exist_ok=True)
                    (path / "checkpoints").mkdir(exist_ok=True)
                json_files.write_json(path / "card.json", card)
                json_files.write_json(path / "config.json", config)

            directory._begin = begin
            if not wait:
                directory.begin()
        except BaseException:
            directory.release()
            raise
        return directory

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Records another plan, of a run that goes on otherwise than it began."""
        json_files.write_json(self.path / "config.json", config)

    def begin(self) -> None:
        """Carries out what `create` left waiting; nothing the second time."""
        if self._begin is not None:
            self._begin()
            self._begin = None

    def lock(self) -> None:
        """Keeps other processes from writing this run. UserError where one does."""
        if self._lock is None:
            self._lock = Lock(self.path)

    def release(self) -> None:
        """Lets others write. A run that was not begun leaves nothing behind. May be called twice."""
        if self._lock is not None:
            self._lock.release(discard=self._begin is not None)
            self._lock = None

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """The run at `path`. Raises UserError when there is none."""
        path = Path(path)
        if not is_run(path):
            what = (
                "does not exist"
                if not path.exists()
                else "is not a run (it holds no config.json and card.json)"
            )
            raise UserError(f"'{path}' {what}; name a directory that `etude train` wrote")
        return cls(path)

    # writing

    def write_step(
        self,
        step: int,
        metrics: Mapping[str, Any],
        signals: Sequence[Signal],
        groups: Sequence[Group],
        decode: rows.Decode,
        news: Sequence[News] = (),
    ) -> None:
        """Records one step: its episodes first, its metrics last, so that a line in metrics.jsonl means
        that the step is whole. `news`: of tasks that a model wrote. `decode` maps token ids int32[n] to text, special tokens included. A
        metric that is not finite is stored as null. Raises UserError when the disk is full."""
        episodes = rows.table(step, signals, groups, decode, self._pieces)
        sink = pa.BufferOutputStream()
        pq.write_table(episodes, sink, compression="zstd")
        with writing(self.path / "episodes"):
            (self.path / "episodes").mkdir(exist_ok=True)
        write_atomically(self.episode_file(step), sink.getvalue().to_pybytes())
        for line in written.lines(step, news, episodes):
            json_files.append_line(self.path / "written.jsonl", line)
        json_files.append_line(self.path / "metrics.jsonl", {**metrics, "step": step})

    def write_eval(self, result: Mapping[str, Any]) -> None:
        """Records one evaluation; `result` must hold its `step`. One that was made late, of an earlier step than those
        that are there, takes its place before them."""
        self._append("evals.jsonl", result)
        lines = [(row["step"], json_files.to_json(row)) for row in self.evals()]
        ordered = sorted(lines, key=lambda line: line[0])
        if ordered != lines:
            write_atomically(self.path / "evals.jsonl", "".join(f"{text}\n" for _, text in ordered))

    def write_finding(self, finding: Mapping[str, Any]) -> None:
        """Records one health finding: {step, name, message, value, threshold, episodes}. Without episodes,
        those of its step that best show it are named."""
        named = list(finding.get("episodes") or [])
        if not named:
            named = suspects(self.episodes([int(finding["step"])], COLUMNS), str(finding.get("name")))
        self._append("findings.jsonl", {**finding, "episodes": named})

    def truncate(self, step: int) -> None:
        """Forgets everything after `step`, and whatever was half-written. What stays keeps its bytes."""
        for name in LINES:
            json_files.keep_lines(self.path / name, lambda row: _within(row, step))
        with writing(self.path):
            for beside in [*self.path.glob(".*.tmp"), *self.path.glob("episodes/.*.tmp")]:
                beside.unlink(missing_ok=True)
            for number in self.steps():
                if number > step:
                    self.episode_file(number).unlink(missing_ok=True)

    def write_end(self, state: str, why: str) -> None:
        """Records how a session ended: "finished" or "refused", and why."""
        json_files.write_json(self.path / "ended.json", {"state": state, "why": why})

    def forget_end(self) -> None:
        """The run goes on."""
        with writing(self.path):
            (self.path / "ended.json").unlink(missing_ok=True)

    def remove(self) -> list[str]:
        """Deletes the run, and returns the names of what lies beside it and is no part of one, which stays. UserError
        where another process is at work on it."""
        with Lock(self.path):
            _remove(self.path, OWN)
            left = _foreign(self.path, ())
        if not left:
            with writing(self.path):
                shutil.rmtree(self.path.resolve())
        return left

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if not isinstance(row.get("step"), int):
            raise ValueError(f"a line of {name} needs the step it belongs to; got {row.get('step')!r}")
        json_files.append_line(self.path / name, row)

    # reading

    @property
    def state(self) -> tuple[str, str]:
        """How the run stands: "running", "finished", "refused" or "interrupted"; and why, where that is known."""
        if pid := holder(self.path):
            return "running", f"process {pid}"
        if ended := self.ended:
            return ended
        done = (self.path / "model").exists() or any(e.get("rule") == "last" for e in self.evals())
        return ("finished" if done else "interrupted"), ""

    @property
    def ended(self) -> tuple[str, str] | None:
        """How the last session ended, and why; None where it was cut off, or has not ended."""
        if not (self.path / "ended.json").exists():
            return None
        ended = read_json(self.path / "ended.json")
        return str(ended["state"]), str(ended["why"])

    @property
    def config(self) -> dict[str, Any]:
        """Raises UserError where it is damaged, also when something is read that it lacks."""
        return Facts(self.path / "config.json")

    @property
    def card(self) -> dict[str, Any]:
        return Facts(self.path / "card.json")

    def metrics(self) -> list[dict[str, Any]]:
        return json_files.read_lines(self.path / "metrics.jsonl")

    def evals(self) -> list[dict[str, Any]]:
        return json_files.read_lines(self.path / "evals.jsonl")

    def findings(self) -> list[dict[str, Any]]:
        return json_files.read_lines(self.path / "findings.jsonl")

    def written(self) -> list[dict[str, Any]]:
        """The tasks that a model wrote, the newest first (`report.written.listed`)."""
        return written.listed(json_files.read_lines(self.path / "written.jsonl"))

    def steps(self) -> list[int]:
        """The steps whose episodes are on disk, in order."""
        found = (STEP_FILE.fullmatch(entry.name) for entry in (self.path / "episodes").glob("*.parquet"))
        return sorted(int(match[1]) for match in found if match)

    def episode_file(self, step: int) -> Path:
        return self.path / "episodes" / f"step-{step:06d}.parquet"

    def episodes(self, steps: Iterable[int] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The episodes of `steps` (default: all; steps without a file are passed over), in order, with
        `columns` (default: all of `rows.SCHEMA`). Raises UserError on a file that cannot be read."""
        names = list(columns) if columns is not None else rows.SCHEMA.names
        wanted = self.steps() if steps is None else steps
        tables = []
        for path in filter(Path.exists, map(self.episode_file, wanted)):
            try:
                tables.append(_table(pq.ParquetFile(path), names))
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"'{path}' cannot be read: {error}") from None
        schema = pa.schema([rows.SCHEMA.field(name) for name in names])
        return pa.concat_tables(tables) if tables else schema.empty_table()


def _table(file: pq.ParquetFile, names: Sequence[str]) -> pa.Table:
    """The columns `names`; null where an earlier version did not write one yet. KeyError for others."""
    there = set(file.schema_arrow.names)
    table = file.read(columns=[name for name in names if name in there], use_threads=False)
    for name in rows.LATER:
        if name in names and name not in there:
            table = table.append_column(
                rows.SCHEMA.field(name), pa.nulls(len(table), rows.SCHEMA.field(name).type)
            )
    return table.select(list(names))


def check_free(path: Path, config: Mapping[str, Any], overwrite: bool) -> None:
    """UserError where no run can be begun at `path` (`RunDirectory.create`)."""
    with writing(path):
        there = path.exists()
    if there and not path.is_dir():
        raise UserError(f"'{path}' is a file; a run needs a directory of its own")
    if is_run(path):
        if overwrite:
            return
        begun = any(path.glob("checkpoints/step-*")) or any((path / name).exists() for name in LINES)
        if begun:
            raise UserError(
                f"'{path}' already holds a run; resume it, choose another --out, or delete it with --overwrite"
            )
        if read_json(path / "config.json") != json_files.plain(config):
            raise UserError(
                f"'{path}' holds a run of another plan, cut off before its first checkpoint; choose another --out, or "
                "delete it with --overwrite"
            )
    elif there and (foreign := _foreign(path, OWN if overwrite else {"card.json"})):
        raise UserError(f"'{path}' is not empty and not a run (it holds '{foreign[0]}')")


def _within(row: Mapping[str, Any], step: int) -> bool:
    mine = row.get("step")
    return isinstance(mine, int) and mine <= step


def _foreign(path: Path, own: Collection[str]) -> list[str]:
    """What lies at `path` but is not in `own`, nor half-written, nor an empty folder of a run: a creation or
    an overwriting that was cut short leaves no more than that."""
    blank = {
        name
        for name in ("episodes", "checkpoints")
        if (path / name).is_dir() and not any((path / name).iterdir())
    }
    names = {entry.name for entry in path.iterdir() if not entry.name.endswith(".tmp")}
    return sorted(names - set(own) - blank - {NAME})


def _remove(path: Path, names: Iterable[str]) -> None:
    """Deletes the run's own entries, the plan first: a run half deleted is no longer one."""
    with writing(path):
        for name in ["config.json", *sorted(names)]:
            entry = path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
