"""Where a run's model and tasks lie, what it began with, and what it was trained on: for whoever goes on from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etude import tasks as sources
from etude.errors import UserError
from etude.models.load import MODELS, absolute
from etude.report.run import RunDirectory, is_run
from etude.tasks import TaskSet
from etude.train.config import Plan
from etude.train.settings import RunSettings
from etude.types import Message, Task, Verdict


def places(plan: Plan, settings: RunSettings, named: bool) -> dict[str, str]:
    """Where what the plan names lies, so that it is found from every directory. `named`: the tasks are read by their name.
    The model of a run is what it saved."""
    found = {"model": model_place(plan.model)}
    found |= {"tasks": sources.absolute(plan.tasks)} if named else {}
    return found | ({"teacher": model_place(settings.teacher)} if settings.teacher else {})


def model_place(name: str) -> str:
    """Where a model lies: its directory, that which a run saved, or its name on the hub. UserError for a run without one."""
    if not is_run(name):
        return absolute(name)
    if not (Path(name) / "model").is_dir():
        raise UserError(
            f"the run '{name}' has saved no model yet; go on with it to its end: etude resume {name}"
        )
    return absolute(str(Path(name) / "model"))


def known_places(config: Mapping[str, Any]) -> dict[str, str]:
    """The places that a run's config.json records; what its plan names, where it records none."""
    plan = config["plan"]
    return {"model": plan["model"], "tasks": plan["tasks"], **config.get("places", {})}


def found_model(run: Path, config: Mapping[str, Any], what: str = "model") -> str:
    """Where a run's model (or its teacher) lies now: where it lay, or where its plan says, from here. UserError naming the
    option that says otherwise."""
    place = known_places(config)[what]
    typed = config["plan"]["model"] if what == "model" else config["settings"]["teacher"]
    for name in (place, typed):
        saved = Path(name) / "model"
        if Path(found := absolute(str(saved) if is_run(name) else name)).is_dir() or found in MODELS:
            return found
    if not Path(place).is_absolute():  # a name of the hub
        return place
    how = f"name it: etude resume {run} --model PATH" if what == "model" else "put it back"
    raise UserError(f"the {what} of '{run}' lies no longer at '{place}', and no '{typed}' is here; {how}")


def found_tasks(run: Path, config: Mapping[str, Any]) -> TaskSet:
    """The tasks of a run, from where they lay or from where its plan says, from here."""
    place, typed = known_places(config)["tasks"], config["plan"]["tasks"]
    try:
        return sources.load(place)
    except UserError as error:
        if place == typed:
            raise
        first = error
    try:
        return sources.load(typed)
    except UserError:
        raise UserError(
            f"the tasks of '{run}' cannot be read where they lay, nor from here as '{typed}': {first} (tasks that lie "
            f"elsewhere: etude resume {run} --tasks FILE)"
        ) from None


def lineage(where: str | Path) -> Iterator[Path]:
    """The run at `where`, the one whose model it began with, and so on."""
    path = Path(where)
    seen: set[Path] = set()
    while is_run(path) and path.resolve() not in seen:
        seen.add(path.resolve())
        yield path
        model = Path(known_places(RunDirectory.open(path).config)["model"])
        if not model.is_absolute():
            return
        path = model.parent


def trained_tasks(where: str | Path) -> list[Task]:
    """The prompts that a run, and those that it went on from, were trained on, read back from their episodes."""
    found = {}
    for run in lineage(where):
        rollouts = RunDirectory.open(run).episodes(columns=["task_key", "prompt", "kind", "answer"])
        for row in rollouts.to_pylist():
            messages = tuple(Message(m["role"], m["content"]) for m in json.loads(row["prompt"]))
            found[row["task_key"]] = Task(messages, _unjudged, row["kind"], answer=row["answer"])
    return list(found.values())


def _unjudged(answer: str) -> Verdict:
    raise TypeError("a task read back from an episode has no checker")
