"""Programs that a model wrote, run where they can do no harm and can prove nothing but their output.

One process for each program, started ahead of time and used once. It gets inputs and gives outputs (`tasks.outcomes`);
expected results stay here, and so does the comparison. What keeps it in: `tasks.confinement`, limits on memory, processor
time, file size and descriptors, a deadline, and a bound on its output.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import select
import signal
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from etude.tasks import _sandboxed, confinement
from etude.tasks.outcomes import (
    Ended,
    Missing,
    NotPython,
    Printed,
    Raised,
    Returned,
    decoded,
    nonsense,
    shown,
)

START_SECONDS = 30.0  # for a new process to be ready; not the program's time
SCRIPT = Path(_sandboxed.__file__)


@dataclass(frozen=True)
class Limits:
    seconds: float = 2.0  # wall clock of one request
    memory: int = 512 << 20  # bytes of address space
    output: int = 1 << 20  # bytes of one reply
    file: int = 16 << 20  # bytes of one file, and of the private /tmp


class SandboxError(Exception):
    """The sandbox itself failed: no fault of the program."""


# ---- one program -------------------------------------------------------------------------------------


class Process:
    """One process for one program. Not shared between threads; `end` it, whatever happens."""

    def __init__(self, limits: Limits) -> None:
        if refused := confinement.refusal():
            raise refused
        self.limits = limits
        self._buffer = b""
        bpf = confinement.system_call_filter() if confinement.bubblewrap() else None
        rules, write = (None, None) if bpf is None else os.pipe()
        try:
            if write is not None and bpf is not None:
                os.write(write, bpf)  # a few hundred bytes: a pipe holds them
                os.close(write)
            self._process = subprocess.Popen(
                _command(limits, rules),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                close_fds=True,
                pass_fds=() if rules is None else (rules,),
                env={},
                cwd="/",
            )
        finally:
            if rules is not None:
                os.close(rules)
        self._greetings = 1
        if confinement.protection() == "landlock":
            readable = [str(p) for p in confinement.interpreter()[1]]
            self._send(["confine", confinement.landlock(), readable])
            self._greetings = 2
        self._send(
            ["limits", {"memory": limits.memory, "cpu": int(60 + limits.seconds), "file": limits.file}]
        )
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, code: str) -> Ended | Raised | NotPython | None:
        """Runs the program's text; None where it ran to its end."""
        reply = self._ask(["load", code])
        if isinstance(reply, Ended):
            return reply
        match reply:
            case ["loaded"]:
                return None
            case ["unreadable", int(line), str(message)]:
                return NotPython(line, shown(message))
            case ["raised", str(kind), str(message)]:
                return Raised(shown(kind), shown(message))
        return nonsense()

    def call(
        self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any] | None = None
    ) -> Returned | Raised | Missing | Ended:
        """What the program's function `name` returns or raises."""
        reply = self._ask(["call", name, list(arguments), dict(keywords or {})])
        if isinstance(reply, Ended):
            return reply
        match reply:
            case ["returned", value]:
                return decoded(value)
            case ["raised", str(kind), str(message)]:
                return Raised(shown(kind), shown(message))
            case ["missing"]:
                return Missing()
        return nonsense()

    def main(self, code: str, given: str = "") -> Printed | Ended:
        """The program as a script: what it prints when `given` stands on its standard input."""
        reply = self._ask(["main", code, given])
        if isinstance(reply, Ended):
            return reply
        match reply:
            case ["printed", ["str", str(said)], ["returned"]]:
                error: Raised | NotPython | None = None
            case ["printed", ["str", str(said)], ["raised", str(kind), str(message)]]:
                error = Raised(shown(kind), shown(message))
            case ["printed", ["str", str(said)], ["unreadable", int(line), str(message)]]:
                error = NotPython(line, shown(message))
            case _:
                return nonsense()
        text = decoded(["str", said])
        return Printed(text.value, error) if isinstance(text, Returned) else text

    def prepare(self) -> None:
        """Waits until the process can take a program. Raises SandboxError where it never does."""
        if self._ready:
            return
        for wanted in (["confined"], ["ready"])[-self._greetings :]:
            reply = self._receive(START_SECONDS)
            if reply != wanted:
                self.end()
                raise SandboxError(f"a process for a program could not be started ({reply})")
        self._ready = True

    def end(self) -> None:
        """Kills the process and all that it started, and reaps it. May be called twice."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                assert pipe is not None
                pipe.close()

    def _ask(self, request: Any) -> Any:
        self.prepare()
        self._send(request)
        reply = self._receive(self.limits.seconds)
        if isinstance(reply, Ended):
            self.end()
        return reply

    def _send(self, request: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # an ended process is seen when its reply is read
            data = marshal.dumps(request)
            self._process.stdin.write(len(data).to_bytes(8, "big") + data)
            self._process.stdin.flush()

    def _receive(self, seconds: float) -> Any:
        """The next line as JSON, or why there is none."""
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                return Ended(f"took longer than {seconds:g} s")
            if not select.select([self._process.stdout], [], [], left)[0]:
                continue
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                return Ended("ended its process")
            self._buffer += chunk
            if len(self._buffer) > self.limits.output:
                return Ended(f"gave more than {self.limits.output >> 10} kB of output")
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return nonsense()


def _command(limits: Limits, filter_file: int | None) -> list[str]:
    python, places = confinement.interpreter()
    return confinement.wrapped(
        [python, "-I", "-S", "-u", str(SCRIPT)], [*places, SCRIPT], limits.file, filter_file
    )


# ---- many programs -----------------------------------------------------------------------------------


class Sandbox:
    """Processes started ahead, each for one program. Safe to use from many threads.

    `ahead`: processes that wait, started by a thread of its own."""

    def __init__(self, limits: Limits | None = None, ahead: int = 2) -> None:
        self.limits = limits or Limits()
        if refused := confinement.refusal():  # here, not in the middle of a run
            raise refused
        self._waiting: deque[Process] = deque()
        self._wanted = threading.Semaphore(ahead)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._starter = threading.Thread(target=self._start, name="etude-sandbox", daemon=True)
        self._starter.start()
        self._end = weakref.finalize(self, _end_all, self._waiting, self._closed)

    def _start(self) -> None:
        while not self._closed.is_set():
            if not self._wanted.acquire(timeout=0.2):
                continue
            if self._closed.is_set():
                return
            try:
                process = Process(self.limits)
            except OSError:
                time.sleep(0.05)  # out of processes or descriptors for a moment
                self._wanted.release()
                continue
            self._waiting.append(process)

    @contextlib.contextmanager
    def program(self) -> Iterator[Process]:
        """A process of its own for one program; ended afterwards, with all that it started."""
        if self._closed.is_set():
            raise SandboxError("the sandbox is closed")
        try:
            process = self._waiting.popleft()
            self._wanted.release()
        except IndexError:
            process = Process(self.limits)
        try:
            process.prepare()
            yield process
        finally:
            process.end()

    def close(self) -> None:
        """Ends all waiting processes. May be called twice."""
        self._closed.set()
        self._starter.join()
        _end_all(self._waiting, self._closed)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@cache
def shared() -> Sandbox:
    """The sandbox of this process, with the default limits. Raises Refused (see `confinement.refusal`)."""
    return Sandbox()


def _end_all(waiting: deque[Process], closed: threading.Event) -> None:
    closed.set()
    while waiting:
        waiting.pop().end()
