"""The child's side of `etude.tasks.isolate`: reads checks from stdin, writes verdicts to stdout.

Every check runs in a fork of its own, which ends with it: what a check changes, leaves running or breaks is gone before
the next one. Messages are length-prefixed. Work comes in as a pickle; what goes out is JSON, so that code which took
the child over cannot reach into the parent.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

from etude.tasks import _sandboxed

_FILE_BYTES = 64 << 20  # the largest file that a check may write
_REPLY_BYTES = 16 << 20  # the longest feedback


def frame(payload: bytes) -> bytes:
    """The payload with its length before it."""
    return struct.pack(">Q", len(payload)) + payload


def unframe(buffer: bytes) -> tuple[bytes, bytes] | None:
    """The first payload of the buffer and the rest; None while it is not complete."""
    if len(buffer) < 8:
        return None
    (size,) = struct.unpack(">Q", buffer[:8])
    return (buffer[8 : 8 + size], buffer[8 + size :]) if len(buffer) >= 8 + size else None


def decode(payload: bytes) -> tuple[str, Any]:
    """Kind and value of a message from the child. A message that is none has the kind "garbage"."""
    try:
        kind, value = json.loads(payload)
        return str(kind), value
    except (ValueError, TypeError):
        return "garbage", None


def main() -> None:
    """Serves until stdin closes."""
    memory = int(sys.argv[1])
    die_with_parent()
    # User code may print or read: it gets the null device, not the pipes.
    work, out = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    while head := work.read(8):
        payload = work.read(struct.unpack(">Q", head)[0])
        data = frame(json.dumps(_serve(payload, memory, (work.fileno(), out))).encode())
        while data:
            data = data[os.write(out, data) :]


def _serve(payload: bytes, memory: int, pipes: tuple[int, ...]) -> tuple[str, Any]:
    try:
        head, body = pickle.loads(payload)
        sys.path[:] = head["path"]
        confine = _confinement(*head["confine"]) if head["confine"] else None
        check, answer = _Unpickler(io.BytesIO(body), head["main"]).load()
        prepare = getattr(check, "prepare", None)
        if prepare is not None:
            prepare()  # kept for the checks to come, and not the check's time
    except Exception as error:
        return "error", [f"{type(error).__name__}: {error}", traceback.format_exc()]
    said, saying = os.pipe()
    heard, erring = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()  # its own process group, so that what it starts dies with it
            die_with_parent()  # a child that is killed at work takes its check along
            os.dup2(erring, 2)
            for other in (*pipes, said, heard, erring):
                os.close(other)
            _limits(memory)
            if confine is not None:
                confine()
            _run(check, answer, saying)
        finally:
            os._exit(0)
    os.close(saying)
    os.close(erring)
    reply, errors, late = _listen(said, heard, head["seconds"])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(said)
    os.close(heard)
    kind, value = decode(reply)
    if kind in ("verdict", "error"):
        return kind, value
    tail = errors.decode(errors="replace")
    if late:
        return "error", [f"the check took longer than its deadline ({head['seconds']:g} s)", tail]
    if reply:
        return "error", ["the check wrote over its own verdict", tail]
    return "error", [f"the check took its process down (exit status {status})", tail]


def _run(check: Any, answer: str, saying: int) -> None:
    """The check itself, in a process of its own."""
    try:
        verdict = check(answer)
        found = ("verdict", [float(verdict.reward), bool(verdict.correct), str(verdict.feedback)])
    except SystemExit as left:
        os._exit(left.code if isinstance(left.code, int) else int(left.code is not None))
    except BaseException as error:
        found = ("error", [f"{type(error).__name__}: {error}", traceback.format_exc()])
    data = json.dumps(found).encode()
    while data:
        data = data[os.write(saying, data) :]


def _listen(said: int, heard: int, seconds: float) -> tuple[bytes, bytes, bool]:
    """What the fork said until it ended, the end of what it wrote to stderr, and whether it was out of time."""
    end, reply, errors, open_ = time.monotonic() + seconds, b"", b"", [said, heard]
    while said in open_:
        left = end - time.monotonic()
        if left <= 0 or len(reply) > _REPLY_BYTES:
            return reply[:_REPLY_BYTES], errors, left <= 0
        for ready in select.select(open_, [], [], left)[0]:
            chunk = os.read(ready, 1 << 16)
            if not chunk:
                open_.remove(ready)
            elif ready == said:
                reply += chunk
            else:
                errors = (errors + chunk)[-4000:]
    while heard in open_ and select.select([heard], [], [], 0)[0] and (chunk := os.read(heard, 1 << 16)):
        errors = (errors + chunk)[-4000:]
    return reply, errors, False


@cache
def _confinement(libraries: tuple[str, ...], readable: tuple[str, ...], alone: bool) -> Callable[[], None]:
    """Made once: this takes as long as a check."""
    made: Callable[[], None] = _sandboxed.confinement([*libraries], readable, alone)
    return made


class _Unpickler(pickle.Unpickler):
    """Finds functions of the user's script too, which is loaded under another name so that its guarded
    main part does not run."""

    def __init__(self, file: io.BytesIO, main: str | None) -> None:
        super().__init__(file)
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__" and self._main is not None:
            if "__etude_main__" not in sys.modules:
                from importlib.util import module_from_spec, spec_from_file_location

                spec = spec_from_file_location("__etude_main__", self._main)
                if spec is None or spec.loader is None:
                    raise pickle.UnpicklingError(f"cannot load {self._main}")
                loaded = sys.modules["__etude_main__"] = module_from_spec(spec)
                spec.loader.exec_module(loaded)
            module = "__etude_main__"
        return super().find_class(module, name)


def _limits(memory: int) -> None:
    """Bounds on memory, the size of a file, and core dumps (Linux, macOS)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def die_with_parent() -> None:
    """Linux: this process is killed when the one that forked it ends."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        set_death_signal = 1  # PR_SET_PDEATHSIG: see prctl(2)
        ctypes.CDLL(None).prctl(set_death_signal, int(signal.SIGKILL))
