"""Measuring a policy on held-out tasks, with the same players and checkers as in training."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from etude import __version__, seeds
from etude.errors import UserError
from etude.evaluate.result import Card, EvalResult, from_groups
from etude.evaluate.transitions import second_attempt
from etude.machine import commit
from etude.report.run import RunDirectory, is_run
from etude.rollout.basic import single
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import GroupRollout, checks_in, independent, verdict
from etude.sampling.engine import sampler_for
from etude.train.config import Plan, RunSettings, run_settings
from etude.types import Episode, Group, Message, Request, Task, Verdict


async def attempt(
    generator: Generator,
    check_runner: Any,
    tasks: Sequence[Task],
    samples: int,
    seed: int,
    rollout: Any = None,
    reward: Any = None,
) -> list[Group]:
    """Every task `samples` times. Keys depend on the seed and the task alone, so that the same problems are
    met with the same random numbers by every policy."""
    group_rollouts = [
        GroupRollout(
            task=task,
            request=Request(task=task),
            samples=samples,
            generator=generator,
            check_runner=check_runner,
            rollout=rollout or single(),
            reward=reward or verdict(),
            key=seeds.key(seed, "eval", task.key),
        )
        for task in tasks
    ]
    return list(await asyncio.gather(*(rollouts.group(independent()) for rollouts in group_rollouts)))


def evaluate_run(run: Any, rule: str) -> EvalResult:
    """Held-out accuracy of a run's policy now, by single attempts, appended to evals.jsonl. What it costs is
    kept apart from the run's own budget."""
    policy, settings = run.learner.policy, run.settings
    before = policy.meter.state_dict()
    groups = run.loop.run_until_complete(
        attempt(run.generator, run.check_runner, run.holdout, settings.eval_samples, EVAL_SAMPLING)
    )
    policy.meter.load_state_dict(before)
    run.guard(groups)
    tokens, flops = run.cost()
    card = _card(run.plan.tasks, run.plan.model, policy, run.generator.params, EVAL_SAMPLING, rule)
    result = from_groups(
        groups,
        replace(
            card,
            step=run.context.step,
            flops=flops,
            tokens=int(tokens["generated"] + tokens["trained"]),
            seconds=run.spent["seconds"],
        ),
        answer=answers(run.generator.renderer),
    )
    strict = run.loop.run_until_complete(strictly(groups, run.generator.renderer, run.pool))
    run.directory.write_eval({**result.to_dict(), "strict": strict})
    return result


def answers(renderer: Any) -> Callable[[Episode], str | None]:
    """What an episode answered, as its checker reads it: for majority votes."""
    from etude.tasks.extract import extract

    def answer(episode: Episode) -> str | None:
        sampled = [s.tokens for s in episode.spans if s.sampled]
        if not sampled or episode.task.environment is not None:
            return None
        text = renderer.decode(sampled[-1])
        rule = getattr(episode.task.check, "extract", None)
        return extract(text, rule) if isinstance(rule, str) else text.strip()

    return answer


async def strictly(groups: Sequence[Group], renderer: Any, pool: Any) -> float | None:
    """The share of episodes whose last reply passes a second, stricter check as well: a reward that rises while
    this falls is being gamed. None for worlds, and where a check has no stricter variant."""
    from etude.tasks.check import strict

    passed = asked = 0
    for group in groups:
        if group.task.environment is not None:
            return None
        try:
            check = strict(group.task.check)
        except UserError:
            return None
        for episode in group.episodes:
            if not episode.correct:
                asked += 1
                continue
            last = [s.tokens for s in episode.spans if s.sampled][-1]
            passed += (await pool.check(check, renderer.decode(last))).correct
            asked += 1
    return passed / asked if asked else None


# Settings of a run that also shape an evaluation.
COUNTS = {"max_tokens", "temperature", "top_p", "top_k", "context", "rows"}
COUNTS |= {"precision", "backbone", "check_seconds"}
EVAL_SAMPLING = 0  # evaluations of all runs and seeds meet the problems with the same random numbers


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
    from etude import tasks as sources
    from etude.evaluate import suites
    from etude.train.setup import hold_out

    if (tasks is None) == (suite is None):
        raise UserError("give either --tasks or --suite")
    if suite is not None:
        found = suites.load(suite)
        return found.title, list(found.tasks)
    assert tasks is not None
    return tasks, hold_out(sources.load(tasks), problems)


def evaluate_model(where: str, exam: Exam) -> EvalResult:
    """`etude eval`: a model by name, directory or run."""
    from etude.tasks.isolate import Pool

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
        groups = asyncio.run(attempt(generator, check_runner, exam.problems, samples, exam.seed, rollout))
    card = _card(exam.name, where, policy, params, exam.seed, "given")
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


def load_policy(where: str, precision: str = "bf16", backbone: str = "auto") -> Any:
    """A model by name or directory, or a run's: the model that it saved, or its last whole checkpoint."""
    from etude.models.policy import Policy
    from etude.train import checkpoint
    from etude.train.setup import resolve

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


def _card(tasks: str, model: str, policy: Any, params: Any, seed: int, rule: str) -> Card:
    return Card(
        name=tasks,
        model=model,
        seed=seed,
        sampling=params,
        prompt="chat template" if policy.tokenizer.template else "plain text",
        sampler=f"{type(policy.backbone).__name__} {policy.precision}, etude {__version__}",
        commit=commit(),
        rule=rule,
    )
