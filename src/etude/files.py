"""Files that are whole or absent: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etude.errors import UserError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an operating system's refusal to write `path` into a UserError of one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise UserError(
                f"the disk is full: '{path}' could not be written (what was there before is intact);"
                " free some space and resume the run"
            ) from error
        raise UserError(f"'{path}' could not be written: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes | str) -> None:
    """Puts `data` (text as UTF-8) at `path` in one move; on failure what was there before stays.

    A reader sees the old file or the whole new one, also after a power cut. Raises UserError.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with beside.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, whatever the locale. Raises UserError where it is not."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
