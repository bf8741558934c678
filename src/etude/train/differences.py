"""What must be as it was where a run goes on: what is not is refused, or noted with a warning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from etude.errors import UserError
from etude.tasks.content import contents
from etude.train import checkpoint
from etude.train.config import sealed
from etude.train.identity import unlike
from etude.train.run import Run
from etude.train.settings import RunSettings


@dataclass
class Differences:
    """What is other than it was."""

    changed: dict[str, list[Any]] = field(default_factory=dict)  # what: [was, is]
    warnings: list[str] = field(default_factory=list)

    def note(self, what: str, was: Any, now: Any) -> None:
        if was != now:
            self.changed[what] = [was, now]


def check_config(path: Path, config: Mapping[str, Any], at: int | None) -> None:
    """UserError where config.json is no longer what etude wrote: the run would not follow it."""
    if "seal" not in config or sealed(config) == config:
        return
    _, state, _ = checkpoint.load(path / "checkpoints", at)
    then = {k: v for k, v in state["config"].items() if k not in ("seal", "history")}
    now = {k: v for k, v in config.items() if k not in ("seal", "history")}
    what = f" ({difference(then, now)})" if now != then else ""
    raise UserError(
        f"'{path / 'config.json'}' was edited{what}; it records what the run is: restore it, and name what "
        "shall change to `etude resume`: --set, --steps, --budget, --model or --tasks (another seed is another run)"
    )


def check_model(run: Run, state: Mapping[str, Any], found: Differences) -> None:
    """The model that the run began with: the same weights, or, where the checkpoint holds all of them, others of its kind."""
    unequal = unlike(run.identity, state["model"])
    fatal = [name for name in unequal if name != "weights" or run.settings.lora]
    if fatal:
        raise UserError(
            f"the model at '{run.origin}' is not the one that '{run.directory.path}' began with (another "
            f"{', another '.join(fatal)}); name that: etude resume {run.directory.path} --model PATH"
        )
    if unequal:
        found.warnings.append(
            f"the model at '{run.origin}' has other weights than the run began with; the checkpoint's are used"
        )
        run.origin = ""
    run.identity = state["model"]


def check_tasks(run: Run, state: Mapping[str, Any], found: Differences, allowed: bool) -> None:
    """The held-out problems, and the tasks that are trained on, unless other ones are `allowed`."""
    path, named = run.directory.path, run.plan.tasks
    held = set(state["holdout"]["keys"])
    run.holdout = [task for task in run.holdout if task.key in held]
    now = contents(run.holdout)
    for what in ("questions", "checks"):
        if now[what] != state["holdout"][what]:
            raise UserError(
                f"the held-out problems of '{named}' are not those that the run was started with (other {what}), so that "
                "its evaluations could not be compared; restore them, or start a new run from its model: "
                f"etude train {run.recipe.name} -m {path}"
            )
    unequal = unlike(run.contents, state["tasks"])
    if "reward" in unequal:
        unequal.remove("reward")
        found.note("reward", "the run's", "another function")
        found.warnings.append(
            "the reward function is not the one that the run began with; it goes on with this one"
        )
    if not unequal:
        return
    what = ", ".join(f"other {name}" for name in unequal)
    if not allowed:
        raise UserError(
            f"the tasks '{named}' are not those that the run was started with ({what}); restore them, or go on with "
            f"what they are now: etude resume {path} --changed-tasks"
        )
    found.note("tasks' content", "as at the start", what)


def check_arithmetic(run: Run, state: Mapping[str, Any], found: Differences, step: int) -> None:
    """A warning where this machine makes other bits."""
    now, then = run.arithmetic, state["arithmetic"]
    if unequal := unlike(now, then):
        unsaid = {"ranks": "1"}  # where none is named
        pairs = {n: [d.get(n, unsaid.get(n)) for d in (then, now)] for n in unequal}
        for name, (was, what) in pairs.items():
            found.note(name, was, what)
        said = "; ".join(f"{name} was {was!r}, is {what!r}" for name, (was, what) in pairs.items())
        found.warnings.append(
            f"this machine computes otherwise than the one that wrote the checkpoint ({said}): from step {step} on the run "
            "is not bit for bit what it would have been there"
        )


def engine_as_before(settings: RunSettings, state: Mapping[str, Any]) -> RunSettings:
    """With the engine that the checkpoint is of: run.device=auto takes no GPU where the run began without one, and where it
    began with one that is not here, the same module goes on on the CPU."""
    if settings.device != "auto":
        return settings
    if "device" not in state["arithmetic"]:
        return replace(settings, device="cpu")
    return settings if torch.cuda.is_available() else replace(settings, backbone="transformers")


def difference(old: Any, new: Any, path: str = "") -> str:
    """The first place where two configurations differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                return difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return f"{path} was {old!r}, is {new!r}"
