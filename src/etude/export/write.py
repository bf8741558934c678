"""`etude export`: the files of a model, written beside their place and renamed, with the card of their run."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.export.card import model_card
from etude.files import read_text, writing
from etude.models.adapter import CONFIG
from etude.models.load import MODELS, locate
from etude.models.policy import Policy
from etude.models.save import UNVERIFIED, compare
from etude.report.run import RunDirectory, is_run
from etude.train.measure import checkpoint_policy
from etude.train.put import write_asking

LEFT = ("heads.safetensors",)  # outputs that only training reads
CARD = "README.md"


def to_directory(source: str, place: Path) -> Path:
    """The run's model, whole (an adapter merged), as transformers loads it. `place` must not exist or be empty."""
    run = _run(source)
    with _new(place) as work:
        step = _model_files(run, work)
        _write_card(work, model_card(run, place.name, step))
        if (work / UNVERIFIED).exists():
            print(f"warning: {read_text(work / UNVERIFIED).strip()}", file=sys.stderr)
    return place


def to_adapter(source: str, place: Path) -> Path:
    """The LoRA adapter of a run by itself, as PEFT loads it."""
    run = _run(source)
    rank = run.config["settings"].get("lora")
    if not rank:
        raise UserError(f"'{source}' trained all weights, so it has no adapter; export it with --to DIR")
    step, policy = checkpoint_policy(run.path, precision="fp32")  # the base as it is, not as it was rounded
    backbone: Any = policy.backbone
    base = run.config["plan"]["model"]
    named = base if "/" in base and not Path(base).expanduser().exists() and base not in MODELS else None
    settings = backbone.module.peft_config["default"]
    settings.base_model_name_or_path = named or str(locate(base).resolve())
    settings.inference_mode = True
    with _new(place) as work:
        backbone.module.save_pretrained(str(work), safe_serialization=True)
        policy.tokenizer.save(work)
        write_asking(work, run.config)
        if doubt := compare(backbone, work):
            raise UserError(f"the adapter was not written: {doubt}")
        _write_card(work, model_card(run, place.name, step, adapter=True))
    return place


def to_gguf(source: str, place: Path, dtype: str) -> Path:
    """One file for llama.cpp and what is built on it."""
    from etude.export.gguf import write_gguf

    if place.exists():
        raise UserError(f"'{place}' exists already; name a new file")
    with _model_of(source) as directory, _beside(place) as work:
        write_gguf(directory, work / "model.gguf", dtype, place.stem)
        with writing(place):
            os.replace(work / "model.gguf", place)
    return place


def to_hub(source: str, name: str, private: bool = True) -> str:
    """Uploads a run's model with its card, or an exported directory as it is; returns its address."""
    from etude.export.hub import check_name, upload

    check_name(name)
    if is_run(source):
        with tempfile.TemporaryDirectory() as work:
            return upload(to_directory(source, Path(work) / name.rpartition("/")[2]), name, private)
    directory = Path(source).expanduser()
    if not directory.is_dir() or not any((directory / f).exists() for f in ("config.json", CONFIG)):
        raise UserError(f"'{source}' is neither a run nor a model directory")
    return upload(directory, name, private)


def _run(source: str) -> RunDirectory:
    if not is_run(source) and Path(source).is_dir() and (Path(source) / "config.json").exists():
        raise UserError(f"'{source}' is a model directory already; a run is what is exported")
    return RunDirectory.open(source)


def _model_files(run: RunDirectory, work: Path) -> int:
    """Puts the model of a run into `work`; returns its step."""
    made = run.path / "model"
    if made.is_dir():
        with writing(work):
            shutil.copytree(made, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT))
        examined = [e["step"] for e in run.evals() if e.get("rule") == "last"]  # right before it was saved
        steps = examined or [row["step"] for row in run.metrics()] or [0]
        return int(steps[-1])
    step, policy = checkpoint_policy(run.path)
    policy.save(work)
    write_asking(work, run.config)
    for name in LEFT:
        (work / name).unlink(missing_ok=True)
    return step


@contextmanager
def _model_of(source: str) -> Iterator[Path]:
    """A directory with the whole model of a run, or of a model by any other name."""
    if not is_run(source):
        directory = locate(source)
        if not (directory / CONFIG).exists():
            yield directory
            return
    elif (Path(source) / "model").is_dir():
        yield Path(source) / "model"
        return
    with tempfile.TemporaryDirectory() as work:
        place = Path(work) / "model"
        if is_run(source):
            _model_files(RunDirectory.open(source), place)
        else:
            Policy.load(source, precision="fp32").save(place)
        yield place


def _write_card(work: Path, text: str) -> None:
    with writing(work):
        (work / CARD).write_text(text, encoding="utf-8")


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A directory on the disk of `place`, gone afterwards."""
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _new(place: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `place` when it is whole. UserError where something lies there."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"'{place}' exists already; name a new directory")
    with _beside(place) as beside:
        work = beside / place.name
        work.mkdir()
        yield work
        with writing(place):
            if place.exists():
                place.rmdir()
            os.replace(work, place)
