"""A model directory as transformers reads and writes it: `config.json`, `*.safetensors`, and our auxiliary heads in a
file of their own, which transformers does not read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from etude.errors import UserError
from etude.files import read_json


def read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a model directory: it has no config.json")
    found: dict[str, Any] = read_json(path, "model_type")
    return found


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights of a whole model: safetensors before PyTorch's own, an index before a single file.
    Empty where there are none."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = directory / f"{name}.index.json"
        if index.exists():
            try:
                return sorted({directory / f for f in read_json(index, "weight_map")["weight_map"].values()})
            except (AttributeError, TypeError) as error:
                raise UserError(f"{index} is not an index of weights: {error}") from error
        if (directory / name).exists():
            return [directory / name]
        other = ("heads.safetensors", "adapter_model.safetensors")
        found = sorted(p for p in directory.glob(f"*{Path(name).suffix}") if p.name not in other)
        if found and name.endswith("safetensors"):
            return found
    return []


def read_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a model directory, with our auxiliary heads where there are any. Raises `UserError` where one
    is not finite."""
    files = weight_files(directory)
    if not files:
        raise UserError(f"{directory} holds no model.safetensors (nor pytorch_model.bin)")
    extra = directory / "heads.safetensors"
    for path in [*files, extra] if extra.exists() else files:
        try:
            for name, value in _tensors(path):
                yield name, finite(name, value, path)
        except UserError:
            raise
        except Exception as error:
            cause = str(error).strip().split("\n")[0]
            raise UserError(f"{path} cannot be read: {cause}") from error


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".bin":  # a pickle: only tensors are taken out of it, nothing in it is run
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        yield from ((name, value) for name, value in held.items() if isinstance(value, Tensor))
        return
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            yield key, file.get_tensor(key)


def finite(name: str, value: Tensor, where: object) -> Tensor:
    """`value`; raises `UserError` where it holds NaN or infinity, as after a diverged run or a bad merge."""
    if value.is_floating_point() and value.numel():
        least, most = value.detach().aminmax()
        if not bool(torch.isfinite(least) & torch.isfinite(most)):
            raise UserError(
                f"{where} holds NaN or infinity in {name}; use an earlier checkpoint of the model"
            )
    return value


def write_tensors(tensors: Iterable[tuple[str, Tensor]], directory: Path) -> None:
    """Writes `model.safetensors`, and tensors called `heads.*` into `heads.safetensors`."""
    held = {name: t.detach().contiguous() for name, t in tensors}
    heads = {name: t for name, t in held.items() if name.startswith("heads.")}
    _write({n: t for n, t in held.items() if n not in heads}, directory / "model.safetensors")
    if heads:
        _write(heads, directory / "heads.safetensors")


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file(
            {n: t.to("cpu", copy=True) for n, t in tensors.items()}, str(path), metadata={"format": "pt"}
        )
    except SafetensorError as error:  # its message alone tells what the system said
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a settings file as transformers does."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
