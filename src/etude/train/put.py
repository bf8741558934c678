"""How a run's tasks are put to its models: the settings run.prompt, run.system, run.examples, run.shots and run.thinking; and
how whoever uses its model later puts questions in the same way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etude.errors import UserError
from etude.files import read_json, write_atomically
from etude.models.load import MODELS, locate
from etude.models.policy import Policy
from etude.report.run import RunDirectory, is_run
from etude.tasks import TaskSet, load
from etude.tasks.files import Listed
from etude.text.framing import Framing
from etude.train.settings import RunSettings, run_settings
from etude.types import SamplingParams

Pairs = Sequence[Sequence[str]]
SYSTEM = "tasks_system"  # in a run's config.json
FILE = "etude.json"
"""Lies in the directory of a trained model: `KEPT` of the run's settings, and the examples that it showed."""
KEPT = ("prompt", "system", "thinking", "stop", "temperature", "top_p", "top_k", "max_tokens")


def worked_examples(settings: RunSettings, tasks: TaskSet | None = None) -> list[list[str]]:
    """[question, worked solution or answer] of the first run.shots rows of the file run.examples; none of what is held out
    of `tasks`. UserError where there are too few."""
    if settings.examples is None:
        return []
    sources = load(settings.examples).sources
    rows = [t for s in sources if isinstance(s, Listed) for part in ("train", "eval") for t in s.tasks(part)]
    rows = [t for t in rows if t.answer is not None and not (tasks and tasks.held(t))][: settings.shots]
    if len(rows) < settings.shots:
        raise UserError(
            f"run.examples: '{settings.examples}' has {len(rows)} rows with an answer that are not held out; "
            f"run.shots asks for {settings.shots}"
        )
    return [[t.prompt[-1].content, t.reference or t.answer or ""] for t in rows]


def put(models: Mapping[str, Policy] | Iterable[Policy], settings: RunSettings, examples: Pairs) -> None:
    """From here on the models are asked as the settings say."""
    pairs = tuple((question, answer) for question, answer in examples)
    framing = Framing(settings.prompt, settings.system, pairs, settings.thinking)
    for model in models.values() if isinstance(models, Mapping) else models:
        model.renderer.framing = framing


def recorded(config: Mapping[str, Any]) -> Pairs:
    """The examples that a run was begun with."""
    found: Pairs = config.get("examples", [])
    return found


def write_asking(directory: Path, config: Mapping[str, Any]) -> None:
    """Says in a model's directory how the run of `config` asked it."""
    settings = {name: config["settings"][name] for name in KEPT if name in config["settings"]}
    kept = {**settings, "examples": list(recorded(config)), SYSTEM: config.get(SYSTEM, "")}
    write_atomically(directory / FILE, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


class Asked(NamedTuple):
    """How a run asked: its settings, the examples that it showed, and the system message that all of its tasks brought along."""

    settings: dict[str, Any]
    examples: Pairs = ()
    tasks_system: str = ""


def system_of(tasks: TaskSet) -> str:
    """The system message of all tasks of files and lists, where they have one and the same."""
    listed = [t for s in tasks.sources if isinstance(s, Listed) for t in s.tasks("train")]
    found = {t.prompt[0].content if t.prompt[0].role == "system" else "" for t in listed}
    return found.pop() if len(found) == 1 else ""


def asked_as(where: str) -> Asked:
    """How a run asks, or the run whose trained model lies in a directory or on the hub; of any other model nothing is known."""
    if is_run(where):
        config = RunDirectory.open(where).config
        return Asked(dict(config["settings"]), recorded(config), config.get(SYSTEM, ""))
    if where in MODELS:
        return Asked({})
    file = locate(where) / FILE
    if not file.is_file():
        return Asked({})
    found = read_json(file)
    examples: Any = found.get("examples", []) if isinstance(found, dict) else None
    pairs = isinstance(examples, list) and all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in examples
    )
    if not pairs:
        raise UserError(f"'{file}' does not say how the model was asked; delete it to ask in plain words")
    return Asked({n: v for n, v in found.items() if n in KEPT}, examples, str(found.get(SYSTEM, "")))


def asking(policy: Policy, where: str, plain: bool = False, system: str = "") -> SamplingParams:
    """From here on the policy, which is the model `where`, is asked as its run asked; returns how it is sampled. `plain`:
    questions go to it as they are, and nothing ends a reply but its stop tokens. `system`: a message in the place of the
    run's own."""
    found, examples, own = asked_as(where)
    if plain:
        how = ("temperature", "top_p", "top_k", "max_tokens")
        found, examples, own = {name: found[name] for name in how if name in found}, [], ""
    system = system or ("" if found.get("system") else own)
    settings = run_settings(found, {"system": system} if system else {})
    put([policy], settings, examples)
    return settings.sampling
