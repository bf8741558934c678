"""Running the runs of a comparison: in child processes, within the machine's cores, going on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from etude.errors import UserError
from etude.printable import say
from etude.process import environment
from etude.report.run import is_run
from etude.train import checkpoint
from etude.train.config import Plan
from etude.train.reopen import resume
from etude.train.session import run_session
from etude.train.setup import start

WORKER = """
import sys
from etude.process import leash
leash(int(sys.argv[2]))
from importlib import import_module
module, name = sys.argv[3].split(":")
sys.exit(getattr(import_module(module), name)(sys.argv[1]))
"""


@dataclass(frozen=True)
class Job:
    """One training run of one arm. `plan` as `Plan.to_dict`; `path` is where it runs; `keep`: the trained model is saved
    there; `before`: the untrained one is evaluated as well; `alone`: nothing else runs beside it."""

    arm: str
    seed: int
    plan: Mapping[str, Any]
    path: Path
    keep: bool = False
    before: bool = True
    alone: bool = False

    @property
    def done(self) -> bool:
        return (self.path / "done.json").exists()

    @property
    def stepped(self) -> bool:
        """Whether it has taken a step, and with it the memory that it needs."""
        path = self.path / "metrics.jsonl"
        return path.exists() and path.stat().st_size > 0


def work(job_file: str) -> int:
    """A child's whole life: does its job and notes why it could not."""
    told = json.loads(Path(job_file).read_text(encoding="utf-8"))
    return outcome(Job(**{**told, "path": Path(told["path"])}), perform)


def outcome(job: Job, perform: Callable[[Any], None]) -> int:
    """The exit code of a job; the reason of one that could not be done is noted beside its run."""
    try:
        perform(job)
    except UserError as error:
        say(f"etude: {error}", err=True)
        (job.path.parent / f"{job.path.name}.failed").write_text(
            str(error), encoding="utf-8", errors="replace"
        )
        return 2
    except KeyboardInterrupt:  # Ctrl-C reaches every process of the terminal; the comparison says so
        return 130
    return 0


def perform(job: Job) -> None:
    """Starts or resumes a job's run, trains, evaluates, and notes that it is done. Raises UserError where it cannot
    be run."""
    path = job.path
    begun = is_run(path) and bool(checkpoint.steps(path / "checkpoints"))
    run = resume(path)[0] if begun else start(Plan.from_dict(dict(job.plan)), path, overwrite=True)
    summary = run_session(run, fresh=not begun, force=True, keep_model=job.keep, before=job.before)
    beside = path / "done.json.tmp"
    beside.write_text(json.dumps({"ended": summary["ended"], "alone": job.alone}), encoding="utf-8")
    os.replace(beside, path / "done.json")
    shutil.rmtree(path / "checkpoints", ignore_errors=True)  # gigabytes that nothing will read again


def run_all(
    jobs: Sequence[Job],
    parallel: int,
    say: Callable[[str], None],
    poll: float = 0.2,
    worker: str = "etude.compare.schedule:work",
    ended: Callable[[Job], None] = lambda job: None,
    needed: Callable[[Job], bool] = lambda job: True,
) -> dict[Path, str]:
    """Runs what is not done yet, at most `parallel` at a time and no more than fit into memory, each with its share
    of the cores. Returns {path: why} of the jobs that failed; a failure is tried again when the comparison is started
    again. `worker`: "module:function" that does a job in a child, given the file that describes it. `ended` is called after
    every job that was done, and `needed` is asked before one is started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    env = {**environment(), "OMP_NUM_THREADS": str(max(1, cores // parallel))}
    waiting = [job for job in jobs if not job.done]
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs were done already")
    failed: dict[Path, str] = {}
    room = Room(say)
    running: dict[subprocess.Popen[bytes], Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel and room.for_another(running):
                job = waiting.pop(0)
                if not needed(job):
                    continue
                running[_begin(job, env, parallel == 1, worker)] = job
                say(f"{job.arm}, seed {job.seed}: started")
            time.sleep(poll)
            for child in [c for c in running if c.poll() is not None]:
                job = running.pop(child)
                if child.returncode == 0:
                    say(f"{job.arm}, seed {job.seed}: done")
                    ended(job)
                else:
                    failed[job.path] = _reason(job, child.returncode)
                    say(f"{job.arm}, seed {job.seed}: failed: {failed[job.path]}")
    finally:
        for child in running:
            child.kill()
            child.wait()
    return failed


class Room:
    """Whether one more run fits into memory. What a run needs is not guessed: it is the most that any has been seen
    to take, and nothing is started beside a run that has not finished its first step."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.need, self.told = say, 0, False

    def for_another(self, running: Mapping[subprocess.Popen[bytes], Job]) -> bool:
        if not running:
            return True
        self.need = max(self.need, *(_resident(child.pid) for child in running))
        if not all(job.stepped for job in running.values()):
            return False
        free = psutil.virtual_memory().available
        fits = free > 1.2 * self.need
        if not fits and not self.told:
            self.told = True
            gb = f"a run takes {self.need / 2**30:.1f} GB and {free / 2**30:.1f} GB are free"
            self.say(f"no more than {len(running)} at once fit into memory: {gb}")
        return fits


def _resident(pid: int) -> int:
    """Bytes of memory of a process, 0 when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _begin(job: Job, env: dict[str, str], alone: bool, worker: str) -> subprocess.Popen[bytes]:
    job.path.parent.mkdir(parents=True, exist_ok=True)
    file = job.path.parent / f"{job.path.name}.job.json"
    told = {**asdict(replace(job, alone=alone)), "path": str(job.path), "plan": dict(job.plan)}
    file.write_text(json.dumps(told), encoding="utf-8")
    (job.path.parent / f"{job.path.name}.failed").unlink(missing_ok=True)
    log = open(job.path.parent / f"{job.path.name}.log", "ab")  # noqa: SIM115 - the child keeps it
    with log:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER, str(file), str(os.getpid()), worker],
            stdout=log,
            stderr=log,
            env=env,
        )


def _reason(job: Job, code: int) -> str:
    note = job.path.parent / f"{job.path.name}.failed"
    if note.exists():
        return note.read_text(encoding="utf-8")
    log = (
        (job.path.parent / f"{job.path.name}.log")
        .read_text(errors="replace", encoding="utf-8")
        .strip()
        .splitlines()
    )
    return f"exit code {code}: {log[-1] if log else 'it said nothing'}"
