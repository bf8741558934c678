"""The other side of `etude.tasks.user_code`: a server forked from the run's process, which forks workers, and a worker,
which calls the user's functions.

The server never calls any of them, so that every worker begins with the state that they had when the run began. Work
comes in as a pickle that names those functions by number; what goes out is JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import inspect
import json
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from etude.tasks._child import die_with_parent, frame, unframe
from etude.types import Verdict

NUMBER = 8  # bytes of a process id or an exit status


def serve(control: socket.socket, things: Sequence[Any]) -> None:
    """Forks a worker for each pair of descriptors that comes in, ends those that it is told to, until its parent is gone.

    b"new" with (data, output) -> the worker's process id; b"end" + id -> how it ended, as `waitstatus_to_exitcode`."""
    os.setsid()  # what is typed at the terminal is for the run
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    gc.freeze()  # so that collecting garbage does not touch, and so copy, the pages of the run
    workers: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 3 + NUMBER, 2)
        if message == b"new":
            try:
                pid = os.fork()
            except OSError:  # no memory, or too many processes
                return
            if pid == 0:
                control.close()
                _work(descriptors[0], descriptors[1], things)
            for descriptor in descriptors:
                os.close(descriptor)
            workers.add(pid)
            control.send(pid.to_bytes(NUMBER, "big"))
        elif message:
            pid = int.from_bytes(message[3:], "big")
            workers.discard(pid)
            control.send(_end(pid).to_bytes(NUMBER, "big", signed=True))
        else:
            for pid in workers:
                _end(pid)
            return


def _end(pid: int) -> int:
    """Kills a worker with its whole process group and reaps it; its exit code where it had ended by itself."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    for kill in (os.killpg, os.kill):  # one that has only just begun leads no group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _work(data: int, output: int, things: Sequence[Any]) -> None:
    """A worker's whole life."""
    try:
        os.setsid()  # its own process group, so that what it starts dies with it
        die_with_parent()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="utf-8") as score:
            score.write("1000")  # where memory runs out, this goes before the run does
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)  # the threads of the run were not forked along
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faulthandler.enable(2)  # where it fell, for the error's traceback
        worker = Worker(things, output)
        buffer = b""
        while True:
            while (message := unframe(buffer)) is None:
                chunk = os.read(data, 1 << 16)
                if not chunk:
                    return
                buffer += chunk
            work, buffer = message
            reply = frame(json.dumps(worker.answer(work)).encode())
            while reply:
                reply = reply[os.write(data, reply) :]
    finally:
        os._exit(0)


class Worker:
    """Calls the user's functions one after another. Working directory, environment variables and standard streams are
    put back after every call; what else a function keeps, its later calls find."""

    def __init__(self, things: Sequence[Any], output: int) -> None:
        self._things = things
        self._output = output
        self._made: dict[int, Any] = {}  # environments, by their number
        self._streams()
        self._directory = os.getcwd()
        self._environment, self._variables = (
            dict(os.environ),
            dict(vars(os.environ)["_data"]),
        )  # comparing text takes long

    def answer(self, work: bytes) -> tuple[str, Any]:
        """A request's outcome: "value", "absent" (no such attribute) or "error"."""
        try:
            kind, *rest = Unpickler(BytesIO(work), self._things).load()
            return getattr(self, f"_{kind}")(*rest)
        except SystemExit as left:
            return "error", [f"SystemExit: it called sys.exit({left.code!r:.60})", traceback.format_exc()]
        except BaseException as error:
            return "error", [f"{type(error).__name__}: {error}", traceback.format_exc()]
        finally:
            self._put_back()

    def _call(self, function: Any, *arguments: Any) -> tuple[str, Any]:
        found = function(*arguments)
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
        return "value", encode(found)

    def _make(self, number: int, make: Any, *arguments: Any) -> tuple[str, Any]:
        self._made[number] = make(*arguments)
        return "value", None

    def _drop(self, number: int) -> tuple[str, Any]:
        self._made.pop(number, None)
        return "value", None

    def _do(self, number: int, name: str, *arguments: Any) -> tuple[str, Any]:
        found = getattr(self._made[number], name)(*arguments)
        return "value", encode(asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found)

    def _has(self, number: int, name: str) -> tuple[str, Any]:
        return "value", hasattr(self._made[number], name)

    def _streams(self) -> None:
        os.dup2(self._output, 1)
        os.dup2(self._output, 2)
        self._text = [open(n, "w", 1, encoding="utf-8", errors="replace", closefd=False) for n in (1, 2)]  # noqa: SIM115
        sys.stdout, sys.stderr = self._text
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115

    def _put_back(self) -> None:
        with contextlib.suppress(Exception):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        if [sys.stdout, sys.stderr] != self._text or any(s.closed for s in self._text) or not _open(1, 2):
            self._streams()
        with contextlib.suppress(OSError):
            os.chdir(self._directory)
        if vars(os.environ)["_data"] != self._variables:
            os.environ.clear()
            os.environ.update(self._environment)


class Unpickler(pickle.Unpickler):
    """Finds what was there when the run began by its number."""

    def __init__(self, file: BytesIO, things: Sequence[Any]) -> None:
        super().__init__(file)
        self._things = things

    def persistent_load(self, number: Any) -> Any:
        return self._things[number]


def encode(value: Any) -> Any:
    """A verdict, text, numbers, and lists and mappings of such, as JSON. Raises TypeError for anything else."""
    if isinstance(value, Verdict):
        return {"verdict": [float(value.reward), bool(value.correct), str(value.feedback)]}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {"mapping": {str(name): encode(item) for name, item in value.items()}}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if hasattr(value, "item"):  # a number of NumPy or torch
        return encode(value.item())
    raise TypeError(f"{value!r:.60} was returned, which is neither a verdict nor text nor a number")


def decode(value: Any) -> Any:
    """What `encode` made."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "verdict" in value:
        return Verdict(*value["verdict"])
    return {name: decode(item) for name, item in value["mapping"].items()}


def _open(*descriptors: int) -> bool:
    try:
        for descriptor in descriptors:
            os.fstat(descriptor)
    except OSError:
        return False
    return True


async def _awaited(found: Any) -> Any:
    return await found
