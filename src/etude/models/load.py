"""From a model's name to its weights and tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from etude.errors import UserError
from etude.models.backbone import Backbone, NativeBackbone
from etude.models.config import Unsupported, shape_of
from etude.models.weights import Weights
from etude.text.tokenizer import Tokenizer, read

EMBEDDED = "smollm2"
LAB = "lab"
PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def load(
    name: str, precision: str, lora_rank: int, heads: Mapping[str, int], device: str, backbone: str
) -> tuple[Backbone, Tokenizer, dict[str, Any]]:
    """See `Policy.load`."""
    if precision not in ("bf16", "fp32"):
        raise UserError(f"precision is 'bf16' or 'fp32'; got '{precision}'")
    if backbone not in ("auto", "native", "transformers"):
        raise UserError(f"backbone is 'auto', 'native' or 'transformers'; got '{backbone}'")
    directory = locate(name)
    config = read_config(directory)
    tokenizer = read(directory)
    reason = (
        "LoRA is asked for"
        if lora_rank
        else "'transformers' is asked for"
        if backbone == "transformers"
        else ""
    )
    if not reason:
        try:
            shape = shape_of(config)
        except Unsupported as unsupported:
            reason = str(unsupported)
    if reason and backbone == "native":
        raise UserError(f"the native backbone cannot run {name}: {reason}; use backbone='auto'")
    if reason:
        from etude.models.hf import TransformersBody

        return TransformersBody.load(directory, precision, lora_rank, heads, device), tokenizer, config
    weights = Weights(shape, heads, precision, device)
    with torch.no_grad():
        weights.load(tensors(directory), str(directory))
    return NativeBackbone(weights), tokenizer, config


def locate(name: str) -> Path:
    """The directory that holds a model; converts the embedded one, makes the lab's, downloads one of the hub."""
    if name == EMBEDDED:
        from etude.models.embedded import directory

        return directory()
    if name == LAB:
        from etude.lab.model import directory as made

        return made()
    place = Path(name).expanduser()
    if place.is_dir():
        return place
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith((".", "~")):
        raise UserError(
            f"there is no model directory '{name}' (nor is it '{EMBEDDED}', '{LAB}' or an owner/name on the hub)"
        )
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=PATTERNS))
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise UserError(
            f"'{name}' is no directory here and could not be had from the hub: {type(error).__name__}: {cause}"
        ) from error


def read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{directory} is not a model directory: it has no config.json") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    return found


def tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a model directory, one at a time, with our auxiliary heads where there are any."""
    from safetensors import safe_open

    files = sorted(p for p in directory.glob("*.safetensors") if p.name != "heads.safetensors")
    index = directory / "model.safetensors.index.json"
    if index.exists():
        files = sorted({directory / f for f in json.loads(index.read_text())["weight_map"].values()})
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
