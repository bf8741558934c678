"""One writer for a directory. The lock belongs to the process and ends with it, however it ends: none can be stale."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from etude.errors import UserError
from etude.files import writing

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where a directory is not locked
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


class Lock:
    """Holds `directory` (made if missing) until `release`, or until this process ends. UserError, with the other's
    process id, where another one holds it."""

    def __init__(self, directory: Path, what: str = "run") -> None:
        self.directory = directory
        self._made = [p for p in (directory, *directory.parents) if not p.exists()]
        self._file = -1
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            while self._file < 0:
                self._file = self._take(what)

    def _take(self, what: str) -> int:
        """The descriptor of the locked file; -1 where its holder removed it in the meantime."""
        path = self.directory / NAME
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if fcntl is not None:
                _flock(file)
        except BlockingIOError:
            holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise UserError(
                f"process {holder} is at work on the {what} in '{self.directory}'; wait for it, end it, or name another "
                "directory"
            ) from None
        except OSError:  # a file system without locks
            return file
        if not path.exists() or not os.path.samestat(os.fstat(file), path.stat()):
            os.close(file)
            return -1
        with contextlib.suppress(OSError):  # the number is only for the other's sentence
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()}\n".encode())
        return file

    def release(self, discard: bool = False) -> None:
        """Lets others in. `discard`: directories that were made for this and are still empty go again. May be called
        twice."""
        if self._file < 0:
            return
        if discard:
            (self.directory / NAME).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for path in self._made:
                    path.rmdir()
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()


def holder(directory: Path) -> str:
    """The number of the process that holds the lock of `directory`; "" where none does."""
    try:
        with (directory / NAME).open(encoding="utf-8") as file:
            if fcntl is None:
                return ""
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(32).strip() or "unknown"
    except OSError:
        pass
    return ""


def _flock(file: int) -> None:
    """Takes the lock, after a moment where somebody may only have been looking (`holder`). BlockingIOError."""
    for pause in (0.02, 0.05, None):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is None:
                raise
            time.sleep(pause)
