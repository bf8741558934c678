"""All state of a run in one folder, written beside and renamed. A half-written one is never picked up.

There is no random state to save: streams are keyed by what they are for (see `seeds`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from etude.errors import UserError
from etude.files import disk_full, interrupted, read_json, writing


def save(
    directory: Path,
    step: int,
    state: dict[str, Any],
    keep: int | None = 2,
    sound: int | None = None,
    kind: str = "step",
    more: Callable[[Path], None] | None = None,
) -> Path:
    """Writes `directory/KIND-N` and removes all but the newest `keep` of its kind (None: no other), and the newest up to step
    `sound`. `more` writes further files into the folder that it is given. UserError when the disk is full."""
    final = directory / f"{kind}-{step:06d}"
    beside = directory / f".{kind}-{step:06d}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        with open(beside / "state.pt", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if more is not None:
            more(beside)
        manifest = {
            "step": step,
            "bytes": (beside / "state.pt").stat().st_size,
            "crc": _crc(beside / "state.pt"),
            "more": {n: [p.stat().st_size, _crc(p)] for n, p in _others(beside)},
        }
        (beside / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    except (OSError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if interrupted(error):
            raise KeyboardInterrupt from error
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
    if keep is not None:
        there = steps(directory, kind)
        remain(
            directory, {*there[-keep:], *[s for s in there if sound is not None and s <= sound][-1:]}, kind
        )
    return final


def remain(directory: Path, kept: Collection[int], kind: str = "step") -> None:
    """Removes the checkpoints of a kind but those of the steps `kept`."""
    for old in set(steps(directory, kind)) - set(kept):
        shutil.rmtree(directory / f"{kind}-{old:06d}", ignore_errors=True)


def steps(directory: Path, kind: str = "step") -> list[int]:
    """The steps with a finished checkpoint, ascending."""
    found = (re.fullmatch(rf"{kind}-(\d+)", entry.name) for entry in directory.glob(f"{kind}-*"))
    return sorted(int(m[1]) for m in found if m and (directory / m[0] / "manifest.json").exists())


def load(directory: Path, at: int | None = None, kind: str = "step") -> tuple[int, dict[str, Any], list[str]]:
    """The newest checkpoint (or that of step `at`) whose bytes are as they were written: (step, state, warnings about skipped
    ones). `state["folder"]` is where it lies. UserError when there is none."""
    warnings: list[str] = []
    known = steps(directory, kind)
    if at is not None and known and at not in known:
        there = ", ".join(map(str, known))
        raise UserError(
            f"there is no checkpoint of step {at} in '{directory}'; there are those of steps {there}"
        )
    for step in reversed(known if at is None else [s for s in known if s == at]):
        path = directory / f"{kind}-{step:06d}"
        try:
            manifest = read_json(path / "manifest.json", "bytes", "crc")
            whole = manifest["bytes"] == (path / "state.pt").stat().st_size
            if whole and manifest["crc"] == _crc(path / "state.pt") and _as_written(path, manifest):
                state = torch.load(path / "state.pt", map_location="cpu", weights_only=False)
                return step, {**state, "folder": path}, warnings
        except (OSError, ValueError, KeyError, UserError):
            pass
        warnings.append(f"checkpoint '{path}' is damaged and was passed over")
    if warnings:
        raise UserError(f"no checkpoint in '{directory}' is whole: {warnings[0]}")
    raise UserError(f"there is no checkpoint in '{directory}' to resume from; start the run again")


def _others(folder: Path) -> list[tuple[str, Path]]:
    """The files beside the run's own state, by their names within the folder."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    found = [(p.relative_to(folder).as_posix(), p) for p in files]
    return [(name, path) for name, path in found if name not in ("state.pt", "manifest.json")]


def _as_written(folder: Path, manifest: Mapping[str, Any]) -> bool:
    more = manifest.get("more", {})
    return all(
        (folder / name).stat().st_size == size and _crc(folder / name) == crc
        for name, (size, crc) in more.items()
    )


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            crc = zlib.crc32(block, crc)
    return crc
