"""JSON files, and files of one JSON object a line that are appended to.

A line counts once its newline is on disk. A process killed in the middle of one leaves a torn tail, which
readers ignore and the next append removes.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import write_atomically, writing


def write_json(path: Path, value: Any) -> None:
    """Puts `value` at `path` in one move. Raises UserError."""
    write_atomically(path, to_json(value, indent=2) + "\n")


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Adds one JSON line and flushes it. On failure the file keeps its former content. Raises UserError."""
    line = (to_json(value) + "\n").encode()
    with writing(path), path.open("ab+", buffering=0) as file:
        whole = _whole_length(file)
        file.truncate(whole)
        try:
            written = file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(whole)
            raise


def _whole_length(file: Any) -> int:
    """The number of bytes up to and including the last newline."""
    end: int = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return int(start + newline + 1)
        end = start
    return 0


def raw_lines(path: Path) -> list[bytes]:
    """The whole lines of `path`, newline included; a torn last line is left out. [] without the file. Raises UserError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror or error}") from None
    return [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, in order. Raises UserError naming the line that is not one."""
    rows = []
    for number, line in enumerate(raw_lines(path), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"'{path}' line {number} is not a JSON object; the file was damaged")
        rows.append(row)
    return rows


def keep_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drops what `keep` refuses, lines that are not objects and a torn tail; the rest stay as bytes."""
    if not path.exists():
        return
    kept = []
    for line in raw_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and keep(row):
            kept.append(line)
    data = b"".join(kept)
    if data != path.read_bytes():
        write_atomically(path, data)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader accepts: NumPy and torch scalars become numbers, what is not finite null."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def plain(value: Any) -> Any:
    """`value` with only JSON's own types; what has no counterpart becomes its `str`."""
    if value is None or isinstance(value, str | bool | int):
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(plain(name)): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch
        return plain(value.tolist())
    return str(value)
