"""Saving a model as a directory that transformers loads: written beside, loaded again, compared, renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.errors import UserError
from etude.models.attention import attender
from etude.models.backbone import Backbone
from etude.models.config import ModelConfig, Unsupported
from etude.models.directory import write_json, write_tensors
from etude.models.forward import trunk
from etude.models.layout import layout
from etude.models.weights import Weights
from etude.text.tokenizer import Tokenizer

PROBE = 16  # tokens whose logits are compared
TOLERANCE = 2e-3  # of float32 logits, relative to the largest


def save(backbone: Backbone, config: Mapping[str, Any], tokenizer: Tokenizer, directory: Path) -> Path:
    """See `Policy.save`. An existing directory is replaced if it holds a model, refused otherwise."""
    if directory.exists() and (not directory.is_dir() or _foreign(directory)):
        raise UserError(f"{directory} exists and is not a model directory; choose another name")
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        write_tensors(backbone.export(), work)
        written = {k: v for k, v in config.items() if k != "quantization_config"}
        write_json(work / "config.json", {**written, "dtype": "float32"})
        stops = list(tokenizer.stops)
        write_json(
            work / "generation_config.json", {"eos_token_id": stops[0] if len(stops) == 1 else stops or None}
        )
        tokenizer.save(work)
        compare(backbone, config, work)
        os.chmod(work, 0o755)
        _replace(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return directory


def compare(backbone: Backbone, config: Mapping[str, Any], directory: Path) -> None:
    """Raises RuntimeError unless transformers, from `directory`, gives the logits of the backbone's weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokens = torch.from_numpy(np.arange(PROBE) * 7 % int(config["vocab_size"]))
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        theirs = model(tokens[None]).logits[0].float()
        del model
        ours = _logits(backbone, config, tokens)
    gap = float((theirs - ours).abs().max() / theirs.abs().max().clamp(min=1))
    if not gap < TOLERANCE:
        raise RuntimeError(
            f"what was saved to {directory} gives other logits (relative difference {gap:.2e})"
        )
    AutoTokenizer.from_pretrained(directory)


def _logits(backbone: Backbone, config: Mapping[str, Any], tokens: Tensor) -> Tensor:
    """f32[n, V] by our own float32 pass over the master weights (not over the file)."""
    try:
        model_config = ModelConfig.from_transformers(config)
    except Unsupported:
        return backbone.raw_logits(tokens)
    weights = Weights(model_config, {}, "fp32", frozen=True)
    weights.load(backbone.export())
    rows = layout(tokens, torch.zeros_like(tokens))
    hidden = trunk(weights, rows.tokens, rows.positions, attender(weights, rows))
    return hidden[rows.row_of] @ weights.head.t()


def _foreign(directory: Path) -> bool:
    return any(directory.iterdir()) and not (directory / "config.json").exists()


def _replace(work: Path, directory: Path) -> None:
    """Puts `work` in the place of `directory`, which is never missing for longer than two renames."""
    if not directory.exists():
        os.rename(work, directory)
        return
    old = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-old-"))
    os.rename(directory, old / "was")
    os.rename(work, directory)
    shutil.rmtree(old, ignore_errors=True)
