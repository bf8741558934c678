"""Workers forked from this process as it was at one moment, which answer requests (the other side: `etude.tasks._forked`)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
import warnings
from typing import Any

from etude.tasks import _child, _forked

SHOWN = 2000  # characters that are kept of what one call prints
START_SECONDS = 60.0  # for a fork of a large process


def can_fork() -> bool:
    return sys.platform == "linux"  # elsewhere libraries that were loaded before may not survive it


class ForkServer:
    """The forked server and the worker of the moment. Used by one thread at a time."""

    def __init__(self, known: list[Any]) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()  # what waits in a buffer would be written twice
        self._control, theirs = socket.socketpair()
        self._worker: ForkedWorker | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: their locks are left alone
            self.pid = os.fork()
        if self.pid == 0:
            try:
                self._control.close()
                _forked.serve(theirs, known)
            finally:
                os._exit(0)
        theirs.close()

    def ask(self, request: bytes, seconds: float) -> tuple[str, Any, str]:
        """The worker's reply, and what was printed. Raises WorkerLost where it gave none."""
        if self._worker is None:
            self._worker = self._begin()
        try:
            return self._worker.ask(request, seconds)
        except BaseException as error:  # after an interrupt, what it says later would answer another request
            worker, self._worker = self._worker, None
            said, code = worker.printed(), self._end(worker)
            if isinstance(error, WorkerLost):
                error.said, error.code = said, code
            raise

    def close(self) -> None:
        """Ends the worker and the server."""
        if self.pid:
            if self._worker is not None:
                self._end(self._worker)
            with contextlib.suppress(OSError):
                # Closing alone would not reach it: a server forked later holds a copy of this end.
                self._control.shutdown(socket.SHUT_RDWR)
            self._control.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _begin(self) -> ForkedWorker:
        data, its = socket.socketpair()
        heard, output = os.pipe()
        try:
            socket.send_fds(self._control, [b"new"], [its.fileno(), output])
        except OSError:
            raise WorkerLost("could not be called: the process that forks others is gone") from None
        finally:
            its.close()
            os.close(output)
        return ForkedWorker(self._number("could not be called: no process could be forked"), data, heard)

    def _end(self, worker: ForkedWorker) -> int:
        with contextlib.suppress(OSError):
            self._control.send(b"end" + worker.pid.to_bytes(_forked.NUMBER, "big"))
        code = self._number("ended its process, and more than that")
        worker.close()
        return code

    def _number(self, otherwise: str) -> int:
        """What the server replies. Raises WorkerLost."""
        ready = select.select([self._control], [], [], START_SECONDS)[0]
        reply = self._control.recv(_forked.NUMBER) if ready else b""
        if not reply:
            raise WorkerLost(otherwise)
        return int.from_bytes(reply, "big", signed=True)


LATE, GONE, GARBLED = "", "ended its process (exit status {})", "wrote over its own result"


class WorkerLost(Exception):
    """A worker that gave no reply. `cause`: why, as a sentence goes on."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.said, self.code = "", 0  # what it had printed, and how it ended


class ForkedWorker:
    """One worker and what comes from it."""

    def __init__(self, pid: int, data: socket.socket, heard: int) -> None:
        self.pid, self._data, self._heard = pid, data, heard
        self._buffer = b""
        self._said, self._more = b"", 0
        os.set_blocking(heard, False)

    def ask(self, request: bytes, seconds: float) -> tuple[str, Any, str]:
        """Kind and value of the reply, and what was printed meanwhile. Raises WorkerLost."""
        end = time.monotonic() + seconds
        self._send(request, seconds)
        while (message := _child.unframe(self._buffer)) is None:
            left = end - time.monotonic()
            ready = select.select([self._data.fileno(), self._heard], [], [], max(0.0, left))[0]
            if self._heard in ready:
                self._listen()
            if self._data.fileno() in ready:
                chunk = self._received()
                if not chunk:
                    raise WorkerLost(GONE)
                self._buffer += chunk
            elif left <= 0:
                raise WorkerLost(LATE)
        payload, self._buffer = message
        kind, value = _child.decode(payload)
        if kind not in ("value", "error"):
            raise WorkerLost(GARBLED)
        return kind, value, self.printed()

    def printed(self) -> str:
        """What was printed since this was last asked: its beginning, and how much more there was."""
        self._listen()
        said, more = self._said.decode(errors="replace"), self._more
        self._said, self._more = b"", 0
        return f"{said} [and {more:,} bytes more]" if more else said.rstrip("\n")

    def close(self) -> None:
        self._data.close()
        os.close(self._heard)

    def _send(self, request: bytes, seconds: float) -> None:
        self._data.settimeout(seconds)
        try:
            self._data.sendall(_child.frame(request))
        except OSError as error:
            raise WorkerLost(LATE if isinstance(error, TimeoutError) else GONE) from None

    def _received(self) -> bytes:
        try:
            return self._data.recv(1 << 16)
        except OSError:
            return b""

    def _listen(self) -> None:
        """Takes what was printed: its beginning, and of the rest the length alone."""
        with contextlib.suppress(OSError):
            while chunk := os.read(self._heard, 1 << 16):
                room = max(0, SHOWN - len(self._said))
                self._said += chunk[:room]
                self._more += len(chunk[room:])
