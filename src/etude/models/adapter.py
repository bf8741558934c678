"""Adapters as PEFT writes them (`adapter_config.json`, `adapter_model.safetensors`): loaded on their base, merged."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import read_json
from etude.models.directory import read_config, weight_files

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def base_of(directory: Path, locate: Callable[[str], Path]) -> Path | None:
    """The directory of the model that an adapter belongs to; None where `directory` holds no adapter. Raises
    `UserError` where adapter files lie beside a whole model: which of the two is meant cannot be told."""
    there = [name for name in (CONFIG, *WEIGHTS) if (directory / name).exists()]
    if not there:
        return None
    if weight_files(directory):
        raise UserError(
            f"{directory} holds a whole model and an adapter beside it ({', '.join(there)}): move the adapter into a "
            "directory of its own to use it on its base, or remove it to use the model as it is"
        )
    if CONFIG not in there or len(there) < 2:
        absent = CONFIG if CONFIG not in there else WEIGHTS[0]
        raise UserError(f"{directory} holds an adapter without its {absent}")
    try:
        name = read_json(directory / CONFIG).get("base_model_name_or_path")
    except AttributeError as error:
        raise UserError(f"{directory / CONFIG} is not a JSON object: {error}") from error
    if not isinstance(name, str) or not name:
        raise UserError(f"{directory / CONFIG} names no base model; set base_model_name_or_path")
    try:
        beside = directory / name
        base = beside if not Path(name).expanduser().is_dir() and beside.is_dir() else locate(name)
    except UserError as error:
        raise UserError(f"the adapter {directory} needs its base model '{name}': {error}") from error
    if not weight_files(base):
        raise UserError(f"the base of the adapter {directory}, {base}, holds no weights of a whole model")
    return base


def merge(module: Any, directory: Path) -> Any:
    """A float32 module of the base with the adapter's weights merged into its own."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError(
            f"{directory} is an adapter, which needs peft; run: pip install 'etude[lora]'"
        ) from error
    try:
        rows = _rows(directory)
        if rows and rows != module.get_input_embeddings().num_embeddings:
            module.resize_token_embeddings(rows)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(module, str(directory))
        if any("missing adapter keys" in str(w.message) for w in said):
            raise ValueError("its weights do not cover the layers that it names")
        return adapted.merge_and_unload()
    except Exception as error:
        cause = re.sub(r"\s+", " ", str(error)).strip()[:300]
        raise UserError(f"the adapter {directory} does not fit its base: {cause}") from error


def merged_config(directory: Path, base: Path) -> dict[str, Any]:
    """The base's configuration, with the vocabulary that the adapter was trained with. An adapter with an embedding or a
    head of its own unties the two."""
    config, shapes = read_config(base), _outer(directory)
    rows = _rows(directory)
    if rows:
        config = {**config, "vocab_size": rows}
    return {**config, "tie_word_embeddings": False} if shapes else config


def _rows(directory: Path) -> int | None:
    """Rows of the embedding or head that an adapter holds; None where it holds none."""
    whole = [shape[0] for name, shape in _outer(directory).items() if "lora_" not in name]
    return whole[0] if whole else None


def _outer(directory: Path) -> dict[str, list[int]]:
    """Shapes of an adapter's tensors on the embedding and the head."""
    from safetensors import safe_open

    path = directory / WEIGHTS[0]
    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            names = [n for n in file.keys() if re.search(r"(embed_tokens|wte|lm_head)\.", n)]  # noqa: SIM118
            return {n: file.get_slice(n).get_shape() for n in names}
    except Exception as error:
        raise UserError(f"{path} cannot be read: {error}") from error
