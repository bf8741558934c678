"""Where checkers run: etude's own here, a user's beside the run (`tasks.user_code`), and those that ask for it (`isolated`)
in a child process, under a deadline that starts when the work starts.

A child is a fresh interpreter that never imports torch; each check runs in a fork of it, so that one that hangs, crashes,
exits, prints without end or changes global state harms its own episode only. A child that does not answer is killed
with its whole process group and replaced. What went wrong reaches the caller as `CheckError`: it never becomes a
reward of zero. This is for code that is trusted in its intent (`tasks.sandbox` is for code that is not).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.tasks import _child, confinement, sandbox
from etude.tasks.check import CheckError, blocking, confined, isolated
from etude.tasks.user_code import UserCode, foreign, here, judge, name_of
from etude.types import Check, Environment, Verdict

START_SECONDS = 60.0  # for starting the interpreter and importing what the check needs; not the check's time


class Pool:
    """The processes in which checks and other code of users run. Safe to use from many coroutines and event loops.

    `workers`: children at most that run isolated checks, started when first needed. `seconds`: time one check may take,
    counted from the moment that it begins. `memory`: address space of a child in bytes (0: no limit). `known`: code
    of users that is there already; the process that calls it is forked now where there is any, so best before
    models are loaded.
    """

    def __init__(
        self, workers: int = 2, seconds: float = 10.0, memory: int = 4 << 30, known: Iterable[Any] = ()
    ) -> None:
        if workers < 1 or not seconds > 0 or memory < 0:
            raise UserError(
                f"check pool: workers={workers}, seconds={seconds}, memory={memory}; "
                "there must be at least 1 worker, more than 0 seconds and no negative memory"
            )
        self.seconds = seconds
        self._memory = memory
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="etude-check")
        self._idle: dict[bool, queue.SimpleQueue[_Child]] = {
            kept: queue.SimpleQueue() for kept in (False, True)
        }
        self._all: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        # A pool that nobody closed must not leave children behind.
        self._end = weakref.finalize(self, _kill_all, self._all)
        theirs = [thing for thing in known if foreign(thing)]
        self._user_code = UserCode(theirs, seconds) if theirs else None

    async def check(self, check: Check, answer: str) -> Verdict:
        """The verdict on `answer`. Raises CheckError."""
        if blocking(check):
            return await asyncio.wrap_future(self._threads.submit(self._here_or_beside, check, answer))
        if not isolated(check):
            return self._here_or_beside(check, answer)
        return await asyncio.wrap_future(self._submit(check, answer))

    def run(self, check: Check, answer: str) -> Verdict:
        """The same for callers without an event loop; blocks."""
        if not isolated(check):
            return self._here_or_beside(check, answer)
        return self._submit(check, answer).result()

    def reward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a reward function returns, or a `functools.partial` around one. Raises CheckError."""
        call = self.beside.call if foreign(function) else here
        return call("reward", f"the reward '{name_of(function)}'", function, *arguments)

    def environment(self, make: Callable[..., Environment], seed: int) -> Environment:
        """A new environment, beside the run where it is a user's. Raises CheckError."""
        return self.beside.environment(make, seed) if foreign(make) else make(seed)

    @property
    def beside(self) -> UserCode:
        """Where the code of users is called."""
        with self._lock:
            if self._user_code is None:
                self._user_code = UserCode((), self.seconds)
            return self._user_code

    def _here_or_beside(self, check: Check, answer: str) -> Verdict:
        call = self.beside.call if foreign(check) else here
        verdict: Verdict = call("check", f"the check '{name_of(check)}'", judge, check, answer)
        return verdict

    def close(self) -> None:
        """Ends all children, those at work too, and waits for them. May be called twice."""
        with self._lock:
            self._closed = True
        for child in list(self._all):
            child.kill()  # a thread that waits for it sees the end and tidies up
        self._threads.shutdown(wait=True)
        _kill_all(self._all)
        if self._user_code is not None:
            self._user_code.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children alive now."""
        return [c.process.pid for c in list(self._all)]

    def _submit(self, check: Check, answer: str) -> Future[Verdict]:
        if self._closed:
            raise CheckError("the check pool is closed")
        return self._threads.submit(self._run, check, answer)

    def _run(self, check: Check, answer: str) -> Verdict:
        try:
            work = pickle.dumps((check, answer))
        except Exception as error:
            raise CheckError(
                f"an isolated check must be picklable (a function must be importable by name): {error}"
            ) from error
        child = self._take(confined(check))
        try:
            verdict = child.run(work, self.seconds)
        except _Broken as broken:
            tail = child.end()
            self._all.discard(child)
            raise CheckError(str(broken), tail) from None
        except CheckError:
            self._idle[child.kept_in].put(child)
            raise
        except BaseException:
            child.end()
            self._all.discard(child)
            raise
        self._idle[child.kept_in].put(child)
        return verdict

    def _take(self, kept_in: bool) -> _Child:
        with self._lock:
            if self._closed:
                raise CheckError("the check pool is closed")
            with contextlib.suppress(queue.Empty):
                while True:
                    child = self._idle[kept_in].get_nowait()
                    if child.process.poll() is None:
                        return child
                    child.end()  # died while idle: somebody else killed it
                    self._all.discard(child)
            child = _Child(self._memory, kept_in)
            self._all.add(child)
            return child


class _Broken(Exception):
    """The child cannot be used any more."""


class _Child:
    """One child and the two pipes to it. Used by one thread at a time."""

    def __init__(self, memory: int, kept_in: bool) -> None:
        self.kept_in = kept_in
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        source = Path(__file__).resolve().parents[2]
        code = f"import sys; sys.path.insert(0, {str(source)!r}); from etude.tasks._child import main; main()"
        env = {**({} if kept_in else os.environ), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-c", code, str(memory)]
        places = confinement.library("etude", "reasoning_gym", "sympy") if kept_in else []
        self.process = subprocess.Popen(
            confinement.wrapped(command, places, sandbox.Limits().file) if kept_in else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # its own process group, so that what it starts dies with it
            env=env,
        )
        self._buffer = b""
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        self._head: dict[str, Any] = {
            "path": list(sys.path),
            "main": os.path.abspath(main) if main else None,
            "confine": confinement.confinement(places) if kept_in else None,
        }

    def run(self, work: bytes, seconds: float) -> Verdict:
        """Raises CheckError for an exception in the check, _Broken where the child must be replaced."""
        self._send(pickle.dumps(({**self._head, "seconds": seconds}, work)))
        kind, value = self._receive(START_SECONDS + seconds, "gave no answer")
        if kind == "error":
            raise CheckError(value[0], value[1])
        if kind != "verdict":
            raise _Broken(f"the check's process sent '{kind}' out of turn")
        return Verdict(*value)

    def kill(self) -> None:
        """Kills the child's whole process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> str:
        """Kills and reaps; the last of what the child wrote to stderr. Only for the thread that holds it."""
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, AttributeError):
                pipe.close()  # type: ignore[union-attr]
        if self._stderr.closed:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4000))
        tail = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        return tail

    def _send(self, payload: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(_child.frame(payload))
            self.process.stdin.flush()
        except (OSError, ValueError) as error:
            raise _Broken(f"the check's process is gone: {error}") from None

    def _receive(self, seconds: float, fault: str) -> tuple[str, Any]:
        """The next message, waited for at most `seconds`."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while (message := _child.unframe(self._buffer)) is None:
            left = end - time.monotonic()
            try:
                ready = left > 0 and select.select([self.process.stdout], [], [], left)[0]
                chunk = os.read(self.process.stdout.fileno(), 1 << 16) if ready else None
            except (OSError, ValueError):
                chunk = b""
            if chunk is None:
                raise _Broken(f"the check {fault} ({seconds:g} s)")
            if not chunk:
                raise _Broken(f"the check took its process down (exit status {self.process.wait()})")
            self._buffer += chunk
        payload, self._buffer = message
        # Plain data only: a child that user code took over must not run code here.
        kind, value = _child.decode(payload)
        return kind, value


def _kill_all(children: set[_Child]) -> None:
    for child in list(children):
        child.end()
        children.discard(child)
