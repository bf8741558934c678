"""All state of a run in one file, written beside and renamed. A half-written one is never picked up.

There is no random state to save: streams are keyed by what they are for (see `seeds`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch

from etude.errors import UserError
from etude.files import disk_full, read_json, writing

NAME = re.compile(r"step-(\d+)")


def save(directory: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Writes `directory/step-N` and removes all but the newest `keep`. UserError when the disk is full."""
    final = directory / f"step-{step:06d}"
    beside = directory / f".step-{step:06d}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        with open(beside / "state.pt", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        manifest = {
            "step": step,
            "bytes": (beside / "state.pt").stat().st_size,
            "crc": _crc(beside / "state.pt"),
        }
        (beside / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    except (OSError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if disk_full(error):
            raise UserError(
                f"the disk of '{directory}' is full; the run is whole up to its last checkpoint: free space, then resume"
            ) from error
        if isinstance(error, OSError):
            raise UserError(f"'{directory}' could not be written: {error.strerror or error}") from error
        raise
    with writing(directory):
        shutil.rmtree(final, ignore_errors=True)
        os.replace(beside, final)
    for old in steps(directory)[:-keep]:
        shutil.rmtree(directory / f"step-{old:06d}", ignore_errors=True)
    return final


def steps(directory: Path) -> list[int]:
    """The steps with a finished checkpoint, ascending."""
    found = (NAME.fullmatch(entry.name) for entry in directory.glob("step-*"))
    return sorted(int(m[1]) for m in found if m and (directory / m[0] / "manifest.json").exists())


def load(directory: Path) -> tuple[int, dict[str, Any], list[str]]:
    """The newest checkpoint whose bytes are as they were written: (step, state, warnings about skipped ones).
    UserError when there is none."""
    warnings: list[str] = []
    for step in reversed(steps(directory)):
        path = directory / f"step-{step:06d}"
        try:
            manifest = read_json(path / "manifest.json", "bytes", "crc")
            whole = manifest["bytes"] == (path / "state.pt").stat().st_size
            if whole and manifest["crc"] == _crc(path / "state.pt"):
                state = torch.load(path / "state.pt", map_location="cpu", weights_only=False)
                return step, state, warnings
        except (OSError, ValueError, KeyError, UserError):
            pass
        warnings.append(f"checkpoint '{path}' is damaged and was passed over")
    if warnings:
        raise UserError(f"no checkpoint in '{directory}' is whole: {warnings[0]}")
    raise UserError(f"there is no checkpoint in '{directory}' to resume from; start the run again")


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            crc = zlib.crc32(block, crc)
    return crc
