"""Copies of the metrics for TensorBoard and Weights & Biases. The run directory stays the truth: these are
optional, imported only when asked for, and can be left out without losing anything.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from etude.errors import UserError, nearest
from etude.files import read_json


class Writer(Protocol):
    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Records the numbers of one step; anything that is not a number is passed over."""
        ...

    def close(self) -> None: ...


def flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in `metrics`, those inside dictionaries as `outer/inner`."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _need(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"the {extra} writer needs a package that is missing; pip install 'etude[{extra}]'"
        ) from None


class TensorBoard:
    """Event files under `<run>/tensorboard`. Raises UserError without the package."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        _need("tensorboard", "tensorboard")
        self._writer = _need("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(run / "tensorboard"))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        for name, value in flat(metrics):
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of the project `etude`, named after the directory. Raises UserError without the package."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        wandb = _need("wandb", "wandb")
        try:
            self._run = wandb.init(project="etude", name=run.name, dir=str(run), config=dict(config))
        except Exception as error:  # no key, no network: its own classes differ between versions
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"wandb cannot be used: {said}; `wandb login`, or WANDB_MODE=offline") from error

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._run.log(dict(flat(metrics)), step=step)

    def close(self) -> None:
        self._run.finish()


KNOWN: dict[str, Callable[[Path, Mapping[str, Any]], Writer]] = {"tensorboard": TensorBoard, "wandb": WandB}


def known(names: str) -> list[str]:
    """The writers named in `names`, separated by commas ("": none). Raises UserError when one is unknown, not installed, or
    wants a key that is not there."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in KNOWN:
            raise UserError(f"there is no metrics writer '{name}'{nearest(name, KNOWN)}")
        module = _need(name, name)
        if name == "wandb" and not _has_key(module):
            raise UserError("wandb has no key; `wandb login`, or WANDB_MODE=offline")
    return wanted


def _has_key(wandb: Any) -> bool:
    """Whether wandb can begin without asking: that would be in the middle of a run."""
    offline = os.environ.get("WANDB_MODE", "").lower() in ("offline", "disabled", "dryrun")
    return offline or bool(getattr(getattr(wandb, "api", None), "api_key", None))


def writers(names: str, run: Path) -> list[Writer]:
    """The writers named in `names` for the run at `run`. Raises UserError where one is not `known`, or cannot begin."""
    wanted = known(names)
    config = read_json(run / "config.json") if (run / "config.json").exists() else {}
    return [KNOWN[name](run, config) for name in wanted]
