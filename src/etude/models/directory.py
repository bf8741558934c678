"""A model directory as transformers reads and writes it: `config.json`, `*.safetensors`, and our auxiliary heads in a
file of their own, which transformers does not read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from etude.errors import UserError
from etude.files import read_text


def read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        found: dict[str, Any] = json.loads(read_text(path))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{directory} is not a model directory: it has no config.json") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    return found


def read_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a model directory, one at a time, with our auxiliary heads where there are any."""
    files = sorted(p for p in directory.glob("*.safetensors") if p.name != "heads.safetensors")
    index = directory / "model.safetensors.index.json"
    if index.exists():
        files = sorted(
            {directory / f for f in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        )
    elif (directory / "model.safetensors").exists():
        files = [directory / "model.safetensors"]
    if not files:
        raise UserError(f"{directory} holds no model.safetensors")
    extra = directory / "heads.safetensors"
    for path in [*files, extra] if extra.exists() else files:
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    yield key, file.get_tensor(key)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path} cannot be read: {error}") from error


def write_tensors(tensors: Iterable[tuple[str, Tensor]], directory: Path) -> None:
    """Writes `model.safetensors`, and tensors called `heads.*` into `heads.safetensors`."""
    held = {name: t.detach().contiguous() for name, t in tensors}
    heads = {name: t for name, t in held.items() if name.startswith("heads.")}
    _write({n: t for n, t in held.items() if n not in heads}, directory / "model.safetensors")
    if heads:
        _write(heads, directory / "heads.safetensors")


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file({n: t.clone() for n, t in tensors.items()}, str(path), metadata={"format": "pt"})
    except SafetensorError as error:  # its message alone tells what the system said
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a settings file as transformers does."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
