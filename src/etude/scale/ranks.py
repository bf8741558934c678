"""Processes that train one model together: this one is rank 0, the others are started by it and do what it does.

What concerns all ranks goes through `Ranks.everywhere(function, *arguments)`: the function is called in every process at the
same time, with what that process holds. Ranks start nothing by themselves, so all of them make the same collective calls.

Every wait has a deadline. A rank ends with the process that started it (its command line is that one's pipe), and a rank that
ends ends the group in one sentence; the run resumes from its last checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import platformdirs
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from etude.errors import UserError

GRACE = 10.0  # seconds that a rank has to end by itself before it is killed


@dataclass
class Held:
    """What one process holds: its place among the ranks, and its parts of models and optimisers by name."""

    rank: int
    count: int
    mesh: DeviceMesh
    policies: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Any] = field(default_factory=dict)  # of the policies
    learners: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        return self.rank == 0


class RankLost(UserError):
    """A rank ended, failed or did not answer. The group is at its end."""


class Ranks:
    """The driver's side. One group at a time in a process."""

    def __init__(
        self, count: int, gpus: Sequence[str] = (), backend: str = "gloo", deadline: float = 600.0
    ) -> None:
        self.count, self.deadline, self.backend = count, deadline, backend
        self._gpus = tuple(gpus)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Connection] = []
        self._lock = threading.Lock()
        self._held: Held | None = None
        self._meeting: tempfile.TemporaryDirectory[str] | None = None
        self._lost = ""
        self._threads = torch.get_num_threads()

    @property
    def held(self) -> Held:
        assert self._held is not None
        return self._held

    def start(self) -> None:
        """Starts the other ranks and meets them. `UserError` where that is not possible."""
        if os.name == "nt":
            raise UserError("[trainer] ranks need Linux or macOS")
        if dist.is_initialized():
            raise UserError(
                "this process belongs to a group of ranks already; train one sharded run at a time"
            )
        self._meeting = tempfile.TemporaryDirectory(prefix="etude-ranks-")
        place = str(Path(self._meeting.name) / "store")
        log = logs() / f"{os.getpid()}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, self._threads // self.count) if self.backend == "gloo" else self._threads
        try:
            for rank in range(1, self.count):
                self._start(rank, place, threads, log)
            torch.set_num_threads(threads)
            self._replies("begin")  # a process that cannot even begin is not waited for
            self._held = join(0, self.count, place, self.backend, self._gpu(0), self.deadline)
            self._replies("meet the others")
        except RankLost:
            raise
        except Exception as error:
            self._fail("meet the others", error)

    def _gpu(self, rank: int) -> str:
        return self._gpus[rank] if self._gpus else str(rank)

    def _start(self, rank: int, place: str, threads: int, log: Path) -> None:
        ours, theirs = Pipe()
        words = [str(rank), str(self.count), place, self.backend, self._gpu(rank), str(self.deadline)]
        command = [sys.executable, "-m", "etude.scale.rank", str(theirs.fileno()), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        known = [str(Path(__file__).parents[2]), *(p for p in sys.path if p)]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(known))
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the driver
            )
        theirs.close()
        self._processes.append(process)
        self._pipes.append(ours)

    def everywhere(self, function: Callable[..., Any], *given: Any) -> list[Any]:
        """function(held, *given) in all processes at once; what each returned, by rank. An error of any rank ends the group:
        the others would wait for it for ever. Raises `RankLost`."""
        import cloudpickle

        what = getattr(function, "__name__", "work").removesuffix("_here").replace("_", " ")
        with self._lock:
            if self._lost or self._held is None:
                raise RankLost(self._lost or "the ranks were closed")
            send_by_value()
            told = cloudpickle.dumps((function, given))
            try:
                for pipe in self._pipes:
                    pipe.send_bytes(told)
                mine = function(self.held, *given)
                return [mine, *self._replies(what)]
            except UserError:
                self.close()
                raise
            except Exception as error:
                self._fail(what, error)
                raise  # not reached

    def _replies(self, what: str) -> list[Any]:
        import cloudpickle

        found = []
        for rank, pipe in enumerate(self._pipes, 1):
            if not pipe.poll(self.deadline):
                self._end(f"trainer rank {rank} did not {what} within {self.deadline:g} s")
            try:
                fine, value = cloudpickle.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                self._end(f"trainer rank {rank} {self._how(rank)} while it was to {what}")
            if not fine:
                self._end(f"trainer rank {rank} failed to {what}: {value}")
            found.append(value)
        return found

    def _fail(self, what: str, error: Exception) -> None:
        """After an error in this process: the one to name is the one that came first, which may be another rank's."""
        for rank, (process, pipe) in enumerate(zip(self._processes, self._pipes, strict=True), 1):
            said = self._said(pipe)
            if said:
                self._end(f"trainer rank {rank} failed to {what}: {said}", error)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            if process.poll() is not None:
                self._end(f"trainer rank {rank} {self._how(rank)} while it was to {what}", error)
        cause = str(error).strip().split("\n")[0]
        advice = "; lower run.micro_tokens" if "out of memory" in str(error).lower() else ""
        self._end(f"trainer rank 0 failed to {what}: {type(error).__name__}: {cause}{advice}", error)

    @staticmethod
    def _said(pipe: Connection) -> str:
        import cloudpickle

        with suppress(EOFError, OSError):
            while pipe.poll(0.5):
                fine, value = cloudpickle.loads(pipe.recv_bytes())
                if not fine:
                    return str(value)
        return ""

    def _how(self, rank: int) -> str:
        process = self._processes[rank - 1]
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        code = process.poll()
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return "closed its pipe" if code is None else f"ended with code {code} (see {logs()})"

    def _end(self, sentence: str, cause: Exception | None = None) -> None:
        self._lost = f"{sentence}; the run is whole up to its last checkpoint: resume it"
        self.close()
        raise RankLost(self._lost) from cause

    def close(self) -> None:
        """Ends the other ranks. May be called twice."""
        for pipe in self._pipes:
            pipe.close()  # their sign to end
        if self._held is not None:
            self._held = None
            with suppress(Exception):  # a group whose ranks are gone cannot part in peace
                dist.destroy_process_group()
            torch.set_num_threads(self._threads)
        for process in self._processes:
            try:
                process.wait(0.2 if self._lost else GRACE)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes, self._pipes = [], []
        if self._meeting is not None:
            self._meeting.cleanup()
            self._meeting = None


def send_by_value() -> None:
    """What stands in a user's file, read under a name that no other process could import, goes to the ranks as it is."""
    import cloudpickle

    known = cloudpickle.list_registry_pickle_by_value()
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None) or ""
        made_up = origin.endswith(".py") and Path(origin).stem not in ("__init__", name.rpartition(".")[2])
        if made_up and name not in known:
            cloudpickle.register_pickle_by_value(module)


def logs() -> Path:
    """Where ranks write what they say."""
    return platformdirs.user_log_path("etude") / "ranks"


def join(rank: int, count: int, place: str, backend: str, gpu: str, deadline: float) -> Held:
    """Meets the other ranks at the file `place`."""
    kind = "cuda" if backend == "nccl" else "cpu"
    if kind == "cuda":
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a wait that takes too long raises
        torch.cuda.set_device(int(gpu))
    store = dist.FileStore(place, count)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=count, timeout=timedelta(seconds=deadline)
    )
    return Held(rank, count, init_device_mesh(kind, (count,)))


def greet(pipe: Connection) -> None:
    import cloudpickle

    pipe.send_bytes(cloudpickle.dumps((True, None)))


def serve(pipe: Connection, held: Held) -> None:
    """A rank's life: what the driver says is done, until it ends."""
    import cloudpickle

    greet(pipe)
    while True:
        try:
            told = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            function, given = cloudpickle.loads(told)
            answer = (True, function(held, *given))
        except Exception as error:
            traceback.print_exc()
            cause = str(error).strip().split("\n")[0]
            with suppress(OSError):
                pipe.send_bytes(cloudpickle.dumps((False, f"{type(error).__name__}: {cause}")))
            os._exit(1)  # the others wait for this rank in a collective call: its end ends that
        pipe.send_bytes(cloudpickle.dumps(answer))
