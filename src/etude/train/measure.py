"""Measuring a model by name, directory or run, and reading back what a run was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from etude import tasks as sources
from etude.errors import UserError
from etude.evaluate import suites
from etude.evaluate.result import EvalResult, from_groups
from etude.evaluate.run import answers, attempt, card_of, hold_out
from etude.evaluate.transitions import second_attempt
from etude.event_loop import run as run_coroutine
from etude.models.policy import Policy
from etude.report.run import RunDirectory, is_run
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.tasks.isolate import Pool
from etude.train import checkpoint
from etude.train.config import Plan, RunSettings, run_settings
from etude.train.setup import resolve
from etude.types import Message, Task, Verdict

# Settings of a run that also shape an evaluation.
COUNTS = {"max_tokens", "temperature", "top_p", "top_k", "context", "rows"}
COUNTS |= {"precision", "backbone", "check_seconds"}


@dataclass(frozen=True)
class Exam:
    """What `etude eval` measures: problems with the name that stands on the card."""

    name: str
    problems: Sequence[Task]
    samples: int
    seed: int
    greedy: bool = False
    changes: Mapping[str, str] = field(default_factory=dict)  # settings of the run, by name
    again: str = ""  # how a second attempt is made, of `transitions.AGAIN`; "": single attempts


def exam_tasks(tasks: str | None, suite: str | None, problems: int) -> tuple[str, list[Task]]:
    """The name and the problems of a suite (fixed by content hash), or held out of a task set."""
    if (tasks is None) == (suite is None):
        raise UserError("give either --tasks or --suite")
    if suite is not None:
        found = suites.load(suite)
        return found.title, list(found.tasks)
    assert tasks is not None
    return tasks, hold_out(sources.load(tasks), problems)


def evaluate_model(where: str, exam: Exam) -> EvalResult:
    """`etude eval`: a model by name, directory or run."""
    if idle := set(exam.changes) & {s.name for s in fields(RunSettings)} - COUNTS:
        raise UserError(
            f"run.{min(idle)} does not count when a model is examined; what counts: {', '.join(sorted(COUNTS))}, and "
            "--problems, -k, --greedy and --seed"
        )
    settings: RunSettings = run_settings(run_defaults(where), exam.changes)
    policy = load_policy(where, settings.precision, settings.backbone)
    params = replace(settings.sampling, greedy=exam.greedy)
    sampler = sampler_for(policy, settings.rows)
    samples = 1 if exam.greedy else exam.samples
    with Pool(seconds=settings.check_seconds) as pool:
        generator = Generator(sampler, policy.renderer, params, "policy", settings.context)
        check_runner, rollout = checks_in(pool, sampler, {}), second_attempt(exam.again)
        groups = run_coroutine(attempt(generator, check_runner, exam.problems, samples, exam.seed, rollout))
    card = card_of(exam.name, where, policy, params, exam.seed, "given")
    return from_groups(groups, card, answer=answers(policy.renderer))


def trained_tasks(where: str) -> list[Task]:
    """The prompts that a run was trained on, read back from its episodes, for a contamination check."""
    rollouts = RunDirectory.open(where).episodes(columns=["task_key", "prompt", "kind", "answer"])
    found = {}
    for row in rollouts.to_pylist():
        messages = tuple(Message(m["role"], m["content"]) for m in json.loads(row["prompt"]))
        found[row["task_key"]] = Task(messages, _unjudged, row["kind"], answer=row["answer"])
    return list(found.values())


def _unjudged(answer: str) -> Verdict:
    raise TypeError("a task read back from an episode has no checker")


def load_policy(where: str, precision: str = "bf16", backbone: str = "auto") -> Policy:
    """A model by name or directory, or a run's: the model that it saved, or its last whole checkpoint."""
    path = Path(where)
    if not is_run(where):
        return Policy.load(where, precision=precision, backbone=backbone)
    if (path / "model").exists():
        return Policy.load(str(path / "model"), precision=precision, backbone=backbone)
    plan = Plan.from_dict(RunDirectory.open(where).config["plan"])
    _, state, _ = checkpoint.load(path / "checkpoints")
    _, settings, stages = resolve(plan)
    policy = Policy.load(
        plan.model,
        precision=settings.precision,
        lora_rank=settings.lora,
        heads=dict(stages["objective"].heads),
        backbone=settings.backbone,
    )
    policy.load_state_dict(state["learner"]["policy"])
    return policy


def run_defaults(where: str) -> dict[str, Any]:
    """A run is evaluated with the settings that it was trained with."""
    if not is_run(where):
        return {}
    config = RunDirectory.open(where).config
    Plan.from_dict(config["plan"])
    return dict(config["settings"])
