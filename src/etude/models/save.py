"""Saving a model as a directory that transformers loads: written beside, loaded again, compared, renamed. Weights that
fail the comparison are kept, and marked as not verified."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.errors import UserError
from etude.files import writing
from etude.models.backbone import Backbone
from etude.models.directory import write_json, write_tensors
from etude.printable import say
from etude.text.tokenizer import Tokenizer

PROBE = 16  # tokens whose logits are compared
TOLERANCE = 2e-3  # of float32 logits, relative to the largest
UNVERIFIED = "UNVERIFIED.txt"  # says why what lies beside it is in doubt


def save(backbone: Backbone, config: Mapping[str, Any], tokenizer: Tokenizer, directory: Path) -> Path:
    """See `Policy.save`. An existing directory is replaced if it holds a model, refused otherwise."""
    if directory.exists() and (not directory.is_dir() or _foreign(directory)):
        raise UserError(f"{directory} exists and is not a model directory; choose another name")
    with writing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        with writing(directory):
            write_tensors(backbone.export(), work)
            written = {k: v for k, v in config.items() if k != "quantization_config"}
            write_json(work / "config.json", {**written, "dtype": "float32"})
            stops = list(tokenizer.stops)
            ends = {"eos_token_id": stops[0] if len(stops) == 1 else stops or None}
            write_json(work / "generation_config.json", ends)
            tokenizer.save(work)
            os.chmod(work, 0o755)
            doubt = _doubt(backbone, work)
            kept = _replace(work, directory, keep=bool(doubt))
            if doubt:
                sentence = f"the weights were written to {directory}, but not verified: {doubt}"
                sentence += f"; the model that stood there before is {kept}" if kept else ""
                (directory / UNVERIFIED).write_text(sentence + "\n", encoding="utf-8")
                say(f"warning: {sentence}", err=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return directory


def _doubt(backbone: Backbone, directory: Path) -> str:
    """Why what was written cannot be trusted to be the backbone's weights; "" where it can. Never raises: trained
    weights that cannot be examined are kept all the same."""
    try:
        return compare(backbone, directory)
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        return f"transformers could not read them back ({type(error).__name__}: {cause})"


def compare(backbone: Backbone, directory: Path) -> str:
    """What is wrong with `directory`; nothing where transformers gives the logits of the masters, both in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.no_grad():
        model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        size = model.get_input_embeddings().num_embeddings
        tokens = torch.from_numpy(np.arange(PROBE) * 7 % size)
        theirs = model(tokens[None]).logits[0].float()
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        del model
        ours = backbone.exact_logits(tokens, buffers).to(theirs.device)
    if not bool(ours.isfinite().all()):
        return "the trained weights give NaN or infinity; go back to an earlier checkpoint"
    gap = float((theirs - ours).abs().max() / theirs.abs().max().clamp(min=1))
    if not gap < TOLERANCE:
        return f"read back by transformers they give other logits (relative difference {gap:.2e})"
    AutoTokenizer.from_pretrained(directory)
    return ""


def _foreign(directory: Path) -> bool:
    return any(directory.iterdir()) and not (directory / "config.json").exists()


def _replace(work: Path, directory: Path, keep: bool) -> Path | None:
    """Puts `work` in the place of `directory`, which is never missing for longer than two renames. With `keep`
    the model that stood there stays beside it; its path is returned."""
    if not directory.exists():
        os.rename(work, directory)
        return None
    if keep and any(directory.iterdir()):
        names = (directory.with_name(f"{directory.name}-before-{i}") for i in range(1, 1 << 20))
        aside = next(name for name in names if not name.exists())
        os.rename(directory, aside)
        os.rename(work, directory)
        return aside
    old = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-old-"))
    os.rename(directory, old / "was")
    os.rename(work, directory)
    shutil.rmtree(old, ignore_errors=True)
    return None
