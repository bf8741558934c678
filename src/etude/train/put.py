"""How a run's tasks are put to its models: the settings run.prompt, run.system, run.examples, run.shots and run.thinking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etude.errors import UserError
from etude.models.policy import Policy
from etude.tasks import TaskSet, load
from etude.tasks.files import Listed
from etude.text.framing import Framing
from etude.train.config import RunSettings

Pairs = Sequence[Sequence[str]]


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
