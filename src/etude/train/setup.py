"""From a plan to a run that is ready to move, or a refusal that names what is missing."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from etude import __version__
from etude.errors import Refused, UserError
from etude.methods import build, find, outside, resolved_stages
from etude.recipe import NEEDS, STANDARD, AuxiliaryModel, Recipe
from etude.report.run import RunDirectory
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.train import checkpoint
from etude.train.config import Plan, RunSettings, run_settings
from etude.train.context import Context
from etude.train.run import Run
from etude.train.step import Learner

TUNING_SEED = 1
EVAL_SEED = 0  # held-out tasks are the same for every seed of a run, so that seeds can be compared


def start(plan: Plan, out: str | Path, tasks: Any = None, reward: Any = None, overwrite: bool = False) -> Run:
    """A new run in directory `out`. `tasks` (a TaskSet) and `reward` (a plain function of an episode) stand in
    for what the plan names, when the run is made from Python. Raises UserError before anything is sampled."""
    plan = plan.but(recipe=outside.absolute(plan.recipe))
    recipe, settings, stages = resolve(plan)
    if reward is not None:
        stages["reward"] = as_reward(reward)
    tasks = tasks if tasks is not None else _load_tasks(plan.tasks)
    holdout = hold_out(tasks, settings.eval_problems, settings.tuning)
    missing(recipe, settings, tasks, plan.seed)
    prepare(stages, tasks)
    models = _models(plan, settings, recipe, stages)
    directory = RunDirectory.create(out, describe(plan, recipe, settings), card(), overwrite=overwrite)
    return _assemble(plan, settings, recipe, stages, tasks, holdout, directory, models)


def resume(out: str | Path, tasks: Any = None, reward: Any = None) -> tuple[Run, list[str]]:
    """The run in `out` as it stood at its last whole checkpoint, and warnings. What was recorded after that
    checkpoint is forgotten and will be made again, bit for bit."""
    directory = RunDirectory.open(out)
    config = directory.config
    config["settings"] = {**asdict(RunSettings()), **config["settings"]}  # an earlier version may know fewer
    plan = Plan.from_dict(config["plan"])
    recipe, settings, stages = resolve(plan)
    now = describe(plan, recipe, settings)
    for name in ("settings", "stages", "recipe"):
        if now[name] != config[name]:
            raise UserError(
                f"the run's {name} differ from what its plan gives now: {_difference(config[name], now[name])}; "
                "resume with the version of etude that wrote it, or start a new run"
            )
    if reward is not None:
        stages["reward"] = as_reward(reward)
    tasks = tasks if tasks is not None else _load_tasks(plan.tasks)
    holdout = hold_out(tasks, settings.eval_problems, settings.tuning)
    prepare(stages, tasks)
    _, state, warnings = checkpoint.load(directory.path / "checkpoints")
    for path, was in config.get("methods", {}).items():
        if now["methods"].get(path) != was:
            warnings.append(f"'{path}' has changed since the run began; the run goes on with it as it is now")
    run = _assemble(
        plan, settings, recipe, stages, tasks, holdout, directory, _models(plan, settings, recipe, stages)
    )
    run.load_state_dict(state)
    return run, warnings


def resolve(plan: Plan) -> tuple[Recipe, RunSettings, dict[str, Any]]:
    """The plan's recipe with its changes, the run's settings, and the built stages."""
    own = {k.removeprefix("run."): v for k, v in plan.changes.items() if k.startswith("run.")}
    rest = {k: v for k, v in plan.changes.items() if not k.startswith("run.")}
    recipe = find(plan.recipe)
    settings = run_settings(recipe.all_defaults, own)
    recipe, stages = build(recipe, rest)
    if settings.top_p < 1 and settings.precision == "bf16" and settings.backbone == "transformers":
        raise Refused(
            "run.top_p below 1 needs equal log-probabilities on both sides; use run.backbone=native"
        )
    return recipe, settings, stages


def hold_out(tasks: Any, problems: int, tuning: bool = False) -> list[Any]:
    """The evaluation tasks; of finite sources at most those that were set aside (every result says how many).
    With `tuning`, as many other tasks, which neither evaluation nor training ever sees."""
    finite = [len(s.tasks("eval")) for s in tasks.sources if hasattr(s, "numbered")]
    most = sum(finite) if len(finite) == len(tasks.sources) else problems
    held = tasks.holdout(min(problems, most), EVAL_SEED) if problems else []
    if not tuning:
        return held
    if len(finite) == len(tasks.sources):
        raise UserError(
            "a finite set of tasks is too small to set tuning problems aside; tune on a generator"
        )
    keys = {task.key for task in held}
    return [t for t in tasks.holdout(2 * problems, TUNING_SEED) if t.key not in keys][:problems]


def missing(recipe: Recipe, settings: RunSettings, tasks: Any, seed: int) -> None:
    """Refuses a recipe that needs what the tasks or the models lack, before the first rollout."""
    from etude.types import Request

    samples = [tasks.draw(Request(), i, seed) for i in range(4)]
    has = {
        "reference": all(t.reference for t in samples),
        "hints": all(t.hints for t in samples),
        "answer": all(t.answer or t.reference for t in samples),
        "steps": all(t.meta.get("steps") for t in samples),
        "feedback": all(t.meta.get("feedback", "hint") in ("hint", "full") for t in samples),
        "text": all(t.environment is None for t in samples),
        "teacher": settings.teacher is not None,
    }
    for need in recipe.all_needs:
        if not has[need]:
            raise Refused(f"recipe {recipe.name} needs {NEEDS[need]}, which is missing here")


def prepare(stages: Mapping[str, Any], tasks: Any) -> None:
    """Shows the task set to every stage that wants to see it before anything is sampled, and may refuse it."""
    for part in stages.values():
        if hasattr(part, "prepare"):
            part.prepare(tasks)


def as_reward(function: Any) -> Any:
    """A plain function of an episode -> number or {name: number} as a reward stage."""

    def reward(episode: Any) -> dict[str, float]:
        value = function(episode)
        return value if isinstance(value, dict) else {"reward": float(value)}

    return reward


def describe(plan: Plan, recipe: Recipe, settings: RunSettings) -> dict[str, Any]:
    """config.json: everything that the run was resolved to."""
    stages = {
        name: {"factory": f"{s.factory.__module__}.{s.factory.__qualname__}", **s.checked(name)}
        for name, s in resolved_stages(recipe).items()
    }
    return {
        "etude": __version__,
        "plan": plan.to_dict(),
        "recipe": recipe.name,
        "settings": dict(settings.__dict__),
        "stages": stages,
        "methods": outside.hashes(plan.recipe),  # files of the user's that the recipe was read from
    }


def card() -> dict[str, Any]:
    """Where a number came from: versions, commit, machine."""
    names = ("torch", "transformers", "numpy", "reasoning-gym", "math-verify", "gymnasium", "pyarrow")
    return {
        "etude": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {n: metadata.version(n) for n in names},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def _load_tasks(spec: str) -> Any:
    from etude import tasks

    return tasks.load(spec)


def _models(plan: Plan, settings: RunSettings, recipe: Recipe, stages: Mapping[str, Any]) -> dict[str, Any]:
    from etude.models.policy import Policy

    common: dict[str, Any] = {"precision": settings.precision, "backbone": settings.backbone}
    models = {
        "policy": Policy.load(
            plan.model,
            lora_rank=settings.lora,
            heads=dict(stages["objective"].heads),
            **common,
        )
    }
    for name, companion in _companions(recipe, stages).items():
        if companion.source == "teacher":
            if settings.teacher is None:
                raise Refused(f"recipe {recipe.name} needs {NEEDS['teacher']}, which is missing here")
            models[name] = Policy.load(settings.teacher, **common).clone(frozen=True)
            if models[name].tokenizer.backend.get_vocab() != models["policy"].tokenizer.backend.get_vocab():
                raise Refused(f"the teacher '{settings.teacher}' has another vocabulary than '{plan.model}'")
        elif companion.source == "copy":
            models[name] = Policy.load(
                plan.model, lora_rank=settings.lora, heads=dict(companion.heads), **common
            )
        else:
            models[name] = models["policy"].clone(frozen=True)
    return models


def _companions(recipe: Recipe, stages: Mapping[str, Any]) -> dict[str, AuxiliaryModel]:
    wanted = {name for part in stages.values() for name in getattr(part, "reads", ())}
    standard = {name: STANDARD[name] for name in sorted(wanted) if name in STANDARD}
    return {**standard, **recipe.all_auxiliary}


def _assemble(
    plan: Plan,
    settings: RunSettings,
    recipe: Recipe,
    stages: dict[str, Any],
    tasks: Any,
    holdout: Sequence[Any],
    directory: RunDirectory,
    models: dict[str, Any],
) -> Run:
    from etude.tasks.isolate import Pool

    policy = models.pop("policy")
    learner = Learner(policy, stages["update"], "policy", plan.seed, settings.micro_tokens, settings.sampling)
    auxiliary = {}
    for name, model in models.items():
        companion = _companions(recipe, stages)[name]
        trained = companion.source == "copy"
        update = type(stages["update"])(lr=companion.lr * stages["update"].lr)
        auxiliary[name] = (
            Learner(model, update, name, plan.seed, settings.micro_tokens, settings.sampling)
            if trained
            else model
        )
    sampler = policy.sampler(settings.rows)
    generator = Generator(sampler, policy.renderer, settings.sampling, "policy", settings.context)
    generators = {
        name: Generator(
            model.sampler(settings.rows), model.renderer, settings.sampling, name, settings.context
        )
        for name, model in auxiliary.items()
        if not isinstance(model, Learner)
    }
    pool = Pool(seconds=settings.check_seconds)
    context = Context(plan.seed, tasks, learner, settings.sampling, auxiliary, settings.group_size)
    run = Run(
        plan=plan,
        settings=settings,
        recipe=recipe,
        directory=directory,
        context=context,
        tasks=tasks,
        stages=stages,
        generator=generator,
        generators=generators,
        check_runner=None,
        pool=pool,
        loop=asyncio.new_event_loop(),
        holdout=list(holdout),
    )
    run.check_runner = checks_in(pool, sampler, run.times)
    return run


def _difference(old: Any, new: Any, path: str = "") -> str:
    """The first place where two configurations differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                return _difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return f"{path} was {old!r}, is {new!r}"


def commit() -> str:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
