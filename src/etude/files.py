"""Files that are whole or absent: written beside their place, flushed to disk, then renamed; and what is read of them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude.errors import UserError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_TORCH_SAYS = ("file write failed", "unexpected pos", "PytorchStreamWriter failed", "inline_container")
_SAID_OF_IT = (*_TORCH_SAYS, "os error 28", "os error 122")  # the last two: what is written in Rust


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


def disk_full(error: BaseException) -> bool:
    """Whether a full disk, or a quota, lies behind an error: libraries name it by what they could not do."""
    if interrupted(error):
        return False
    return any(
        seen.errno in _DISK_FULL
        if isinstance(seen, OSError)
        else any(part in str(seen) for part in _SAID_OF_IT)
        for seen in _behind(error)
    )


def interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C lies behind an error: a library that it hits while it writes says that it could not end its file."""
    return any(isinstance(seen, KeyboardInterrupt) for seen in _behind(error))


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came of."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


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
    if path.is_char_device():
        raise UserError(f"'{path}' is a device; name a file")  # some never end
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_json(path: Path, *needed: str) -> Any:
    """The JSON value at `path`; where keys are `needed`, an object that has them. Raises UserError."""
    try:
        found = parsed(read_text(path), f"'{path}'")
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror or error}") from None
    if needed and not isinstance(found, dict):
        raise UserError(f"'{path}' is damaged: it holds no JSON object")
    if lacks := [name for name in needed if name not in found]:
        raise UserError(f"'{path}' is damaged: it lacks {', '.join(lacks)}")
    return found


def parsed(text: str, where: str) -> Any:
    """JSON in which no key of an object stands twice. Raises UserError naming `where`."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise UserError(f"{where}: the key '{key}' stands twice in one object; leave one of them out")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        line = f" (line {error.lineno})" if "\n" in text.strip() else ""
        raise UserError(f"{where} is not JSON: {error.msg}{line}") from None
    except RecursionError:
        raise UserError(f"{where} is not JSON: it is nested too deeply") from None
    except ValueError:
        raise UserError(f"{where} holds a number of too many digits; write it as text") from None
