"""The child's side of `etude.tasks.isolate`: reads checks from stdin, writes verdicts to stdout.

Messages are length-prefixed. Work comes in as a pickle; what goes out is JSON, so that code which took the
child over cannot reach into the parent.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import sys
import traceback
from typing import Any

_FILE_BYTES = 64 << 20  # the largest file that a check may write, its stderr included


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
    _limits(int(sys.argv[1]))
    # User code may print or read: it gets stderr and an empty stdin, not the pipes.
    work, out = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    while head := work.read(8):
        payload = work.read(struct.unpack(">Q", head)[0])
        _serve(payload, out)


def _serve(payload: bytes, out: int) -> None:
    def send(kind: str, value: Any) -> None:
        data = frame(json.dumps([kind, value]).encode())
        while data:
            data = data[os.write(out, data) :]

    try:
        head, body = pickle.loads(payload)
        sys.path[:] = head["path"]
        check, answer = _Unpickler(io.BytesIO(body), head["main"]).load()
        prepare = getattr(check, "prepare", None)
        if prepare is not None:
            prepare()
        send("started", None)
        verdict = check(answer)
        send("verdict", [float(verdict.reward), bool(verdict.correct), str(verdict.feedback)])
    except Exception as error:
        send("error", [f"{type(error).__name__}: {error}", traceback.format_exc()])


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
    """Bounds on memory, files and core dumps, and death together with the parent (Linux)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        set_death_signal, kill = 1, 9  # PR_SET_PDEATHSIG, SIGKILL: see prctl(2)
        ctypes.CDLL(None).prctl(set_death_signal, kill)
