"""From a model's name to its weights and tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from etude.errors import UserError
from etude.models.adapter import base_of, merged_config
from etude.models.backbone import Backbone, NativeBackbone
from etude.models.config import ModelConfig, Unsupported
from etude.models.directory import read_config, read_tensors
from etude.models.hf import TransformersBackbone
from etude.models.pretrained import pretrained
from etude.models.weights import Weights
from etude.registry import Registry
from etude.text.tokenizer import Tokenizer, read

MODELS = Registry(
    "etude.models",
    {
        "smollm2": "etude.models.embedded:directory",
        "lab": "etude.lab.model:directory",
        "lab-smollm2": "etude.lab.model:second_directory",
    },
)
"""Models by name: functions that return the directory, made or converted at first use."""

PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def load(
    name: str,
    precision: str,
    lora_rank: int,
    heads: Mapping[str, int],
    device: str,
    backbone: str,
    recompute: bool,
) -> tuple[Backbone, Tokenizer, dict[str, Any]]:
    """See `Policy.load`."""
    if precision not in ("bf16", "fp32"):
        raise UserError(f"precision is 'bf16' or 'fp32'; got '{precision}'")
    if backbone not in ("auto", "native", "transformers"):
        raise UserError(f"backbone is 'auto', 'native' or 'transformers'; got '{backbone}'")
    directory = locate(name)
    base = base_of(directory, locate)
    if base is None:
        config, tokenizer = read_config(directory), read(directory)
    else:
        config = merged_config(directory, base)
        tokenizer = read(directory if _has_tokenizer(directory) else base, settings=base)
    reasons = {
        f"the device is '{device}', and it runs on the CPU": device != "cpu",
        "activations are to be computed again (run.recompute)": recompute,
        "LoRA is asked for": lora_rank > 0,
        "'transformers' is asked for": backbone == "transformers",
    }
    reason = next((sentence for sentence, holds in reasons.items() if holds), "")
    if not reason:
        try:
            model_config = ModelConfig.from_transformers(config)
        except Unsupported as unsupported:
            reason = str(unsupported)
        except (KeyError, TypeError, ArithmeticError) as error:
            cause = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{directory / 'config.json'} does not describe a model: {cause}") from error
    if reason and backbone == "native":
        raise UserError(f"the native backbone cannot run {name}: {reason}; use backbone='auto'")
    adapter = None if base is None else directory
    if reason:
        place = base or directory
        found = TransformersBackbone.load(place, precision, lora_rank, heads, device, adapter, recompute)
        return found, tokenizer, config
    weights = Weights(model_config, heads, precision, device)
    with torch.no_grad():
        if base is None:
            weights.load(read_tensors(directory), str(directory))
        else:
            weights.load(pretrained(base, torch.float32, adapter).state_dict().items(), str(directory))
    return NativeBackbone(weights), tokenizer, config


def _has_tokenizer(directory: Path) -> bool:
    return any((directory / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))


def absolute(name: str) -> str:
    """The name of a model as a run stores it: a directory's path from the root."""
    place = Path(name).expanduser()
    return str(place.resolve()) if name not in MODELS and place.is_dir() else name


def locate(name: str) -> Path:
    """The directory that holds a model: a named one (`MODELS`), one that is given, or one of the hub."""
    if name in MODELS:
        return Path(MODELS[name]())
    place = Path(name).expanduser()
    if place.is_dir():
        return place
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith((".", "~")):
        raise UserError(
            f"there is no model directory '{name}' (nor is it {', '.join(map(repr, MODELS))} or an owner/name on the hub)"
        )
    try:
        from huggingface_hub import snapshot_download

        place = Path(snapshot_download(name, allow_patterns=PATTERNS))
        if not any(place.glob("*.safetensors")):  # older models have PyTorch's own files only
            place = Path(snapshot_download(name, allow_patterns=[*PATTERNS, "*.bin"]))
        return place
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise UserError(
            f"'{name}' is no directory here and could not be had from the hub: {type(error).__name__}: {cause}"
        ) from error
