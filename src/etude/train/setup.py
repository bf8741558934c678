"""From a plan to a run that is ready to move, or a refusal that names what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude import __version__
from etude import tasks as sources
from etude.assembly import build, resolved_stages
from etude.channels import agree
from etude.errors import Refused, UserError
from etude.evaluate.run import hold_out
from etude.event_loop import EventLoop
from etude.machine import card
from etude.methods import find, outside
from etude.methods.renamed import RENAMED_SETTINGS
from etude.models.policy import Policy
from etude.printable import say
from etude.recipe import NEEDS, STANDARD, AuxiliaryModel, Recipe
from etude.report.json_files import plain
from etude.report.run import RunDirectory, check_free
from etude.reward.function import from_function
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.settings import parameters
from etude.tasks import TaskSet
from etude.tasks.files import Listed
from etude.tasks.isolate import Pool
from etude.tasks.sandbox import ready_to_run_programs
from etude.train import checkpoint
from etude.train.config import Plan, RunSettings, run_settings
from etude.train.context import RunContext
from etude.train.notes import idle, undecided
from etude.train.run import Run
from etude.train.step import Learner
from etude.types import Episode, Request, Task

RewardFunction = Callable[[Episode], Any]  # see `reward.function.from_function`
OLD_NAMES = {"run.attempts": "run.group_size"}
OLD_STAGES = {"gather": "group_rollout", "select": "filter"}


def start(
    plan: Plan,
    out: str | Path,
    tasks: TaskSet | Sequence[Task] | None = None,
    reward: RewardFunction | None = None,
    overwrite: bool = False,
    reward_weights: Mapping[str, float] | None = None,
    wait: bool = False,
) -> Run:
    """A new run in directory `out`. `tasks` and `reward` (a function of an episode, `reward.function.from_function`)
    stand in for what the plan names, when the run is made from Python. `wait`: nothing is written before
    `run.directory.begin()`. Raises UserError before anything is sampled."""
    if isinstance(plan.recipe, str):
        plan = plan.but(recipe=outside.absolute(plan.recipe))
    recipe, settings, stages = resolve(plan)
    tasks = task_set(plan.tasks if tasks is None else tasks)
    holdout = hold_out(tasks, settings.eval_problems, settings.tuning)
    missing(recipe, settings, tasks, plan.seed)
    prepare(stages, tasks)
    config = describe(plan, recipe, settings)
    check_free(Path(out), plain(config), overwrite)  # before the model is loaded
    pool = Pool(seconds=settings.check_seconds, known=users_code(tasks, holdout, reward))
    if reward is not None:
        stages["reward"] = from_function(reward, reward_weights, pool)
    models = _models(plan, settings, recipe, stages)
    notes = [*idle(recipe, stages, plan.changes), *(undecided(recipe) if reward else ()), *tasks.notes]
    tasks, holdout = fit(tasks, holdout, models["policy"], settings, notes.extend)
    directory = RunDirectory.create(out, config, card(), overwrite=overwrite, wait=wait)
    tell(notes)
    try:
        return _assemble(plan, settings, recipe, stages, tasks, holdout, directory, models, pool)
    except BaseException:
        directory.release()
        pool.close()
        raise


def resume(
    out: str | Path,
    tasks: TaskSet | Sequence[Task] | None = None,
    reward: RewardFunction | None = None,
    recipe: Recipe | None = None,
    reward_weights: Mapping[str, float] | None = None,
) -> tuple[Run, list[str]]:
    """The run in `out` as it stood at its last whole checkpoint, and warnings. What was recorded after that
    checkpoint is forgotten and will be made again, bit for bit. What was given as an object from Python, and cannot be
    found by its name, is given again."""
    directory = RunDirectory.open(out)
    directory.lock()
    try:
        return _resume(directory, tasks, reward, recipe, reward_weights)
    except BaseException:
        directory.release()
        raise


def _resume(
    directory: RunDirectory,
    tasks: TaskSet | Sequence[Task] | None,
    reward: RewardFunction | None,
    recipe: Recipe | None,
    reward_weights: Mapping[str, float] | None,
) -> tuple[Run, list[str]]:
    config = directory.config
    config["settings"] = {**asdict(RunSettings()), **config["settings"]}  # an earlier version may know fewer
    plan = Plan.from_dict(config["plan"])
    if recipe is not None:
        plan = plan.but(recipe=recipe)
    found, settings, stages = _found_again(plan)
    now = describe(plan, found, settings)
    for name in ("settings", "stages", "recipe"):
        if now[name] != config[name]:
            raise UserError(
                f"the run's {name} differ from what its plan gives now: {_difference(config[name], now[name])}; "
                "resume with the version of etude that wrote it, or start a new run"
            )
    tasks = task_set(plan.tasks if tasks is None else tasks)
    holdout = hold_out(tasks, settings.eval_problems, settings.tuning)
    prepare(stages, tasks)
    pool = Pool(seconds=settings.check_seconds, known=users_code(tasks, holdout, reward))
    if reward is not None:
        stages["reward"] = from_function(reward, reward_weights, pool)
    _, state, warnings = checkpoint.load(directory.path / "checkpoints")
    for path, was in config.get("methods", {}).items():
        if now["methods"].get(path) != was:
            warnings.append(f"'{path}' has changed since the run began; the run goes on with it as it is now")
    models = _models(plan, settings, found, stages)
    tasks, holdout = fit(tasks, holdout, models["policy"], settings, warnings.extend)
    run = _assemble(plan, settings, found, stages, tasks, holdout, directory, models, pool)
    run.load_state_dict(state)
    return run, warnings


def _found_again(plan: Plan) -> tuple[Recipe, RunSettings, dict[str, Any]]:
    try:
        return resolve(plan)
    except UserError as error:
        if "there is no recipe" not in str(error):
            raise
        raise UserError(
            f"the recipe '{plan.recipe}' of this run cannot be found again; where it was made in Python, give it: "
            "etude.resume(run, recipe=...)"
        ) from error


def resolve(plan: Plan) -> tuple[Recipe, RunSettings, dict[str, Any]]:
    """The plan's recipe with its changes, the run's settings, and the built stages."""
    recipe = plan.recipe if isinstance(plan.recipe, Recipe) else find(plan.recipe)
    refuse_old_names(recipe, plan.changes)
    own = {k.removeprefix("run."): v for k, v in plan.changes.items() if k.startswith("run.")}
    rest = {k: v for k, v in plan.changes.items() if not k.startswith("run.")}
    settings = run_settings(recipe.all_defaults, own)
    recipe, stages = build(recipe, rest)
    agree(resolved_stages(recipe)["credit"], stages["objective"], recipe.name)
    if settings.top_p < 1 and settings.precision == "bf16" and settings.backbone == "transformers":
        raise Refused(
            "run.top_p below 1 needs equal log-probabilities on both sides; use run.backbone=native"
        )
    return recipe, settings, stages


def refuse_old_names(recipe: Recipe, changes: Mapping[str, str]) -> None:
    """UserError naming the new name of a setting, or of a value, that has an old one."""
    renamed = {**_renamed(recipe), **OLD_NAMES}
    stages = resolved_stages(recipe)
    for path, value in changes.items():
        name, _, setting = path.partition(".")
        if name in stages and setting in parameters(stages[name].factory):
            if setting == "mean" and value == "sequence":
                raise UserError(f"the value 'sequence' of '{path}' is called 'episode' now")
            continue
        now = f"{OLD_STAGES[name]}.{setting}" if name in OLD_STAGES else path
        now = renamed.get(now, now)
        if now != path:
            raise UserError(f"the setting '{path}' is called '{now}' now")


def _renamed(recipe: Recipe) -> dict[str, str]:
    """{old: new} of a recipe, of what it is composed of, and of what it is built on."""
    found: dict[str, str] = {}
    for under in (recipe.base, recipe.default_base):
        found |= _renamed(under) if under else {}
    for name in recipe.name.split("+"):
        found |= RENAMED_SETTINGS.get(name, {})
    return found


def task_set(given: str | TaskSet | Sequence[Task]) -> TaskSet:
    """The task set that is named, or that consists of these tasks. Raises UserError for anything else."""
    if isinstance(given, str):
        return sources.load(given)
    if isinstance(given, TaskSet):
        return given
    if isinstance(given, list | tuple) and given and all(isinstance(task, Task) for task in given):
        return TaskSet.of(given)
    raise UserError(f"tasks is {given!r:.60}; it must be text, a TaskSet, or a list of Tasks")


def users_code(tasks: TaskSet, holdout: Sequence[Task], reward: RewardFunction | None = None) -> list[Any]:
    """The functions of the user's that there are before the first model is loaded: a reward, checks, environments."""
    listed = [t for s in tasks.sources if isinstance(s, Listed) for t in s.tasks("train")]
    seen = [tasks.draw(Request(), 0, 0), *listed, *holdout]
    of_tasks = [part for task in seen for part in (task.check, task.environment) if part is not None]
    return [*([reward] if reward is not None else []), *of_tasks]


def tell(notes: Sequence[str]) -> None:
    """Says on standard error what a user should know of the tasks."""
    for note in notes:
        say(note, err=True)


def fit(
    tasks: TaskSet,
    holdout: list[Task],
    policy: Policy,
    settings: RunSettings,
    say: Callable[[Sequence[str]], None],
) -> tuple[TaskSet, list[Task]]:
    """The tasks whose prompts leave room for a reply, and what is held out of them."""
    limit = min(settings.context, policy.context)
    notes = tasks.leave_out_long(lambda task: len(policy.renderer.prompt(task.prompt)), limit)
    if not notes:
        return tasks, holdout
    say(notes)
    return tasks, hold_out(tasks, settings.eval_problems, settings.tuning)


def missing(recipe: Recipe, settings: RunSettings, tasks: TaskSet, seed: int) -> None:
    """Refuses a recipe that needs what the tasks or the models lack, before the first rollout."""
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
    ready_to_run_programs(samples)
    for need in recipe.all_needs:
        if not has[need]:
            raise Refused(f"recipe {recipe.name} needs {NEEDS[need]}, which is missing here")


def prepare(stages: Mapping[str, Any], tasks: TaskSet) -> None:
    """Shows the task set to every stage that wants to see it before anything is sampled, and may refuse it."""
    for part in stages.values():
        if hasattr(part, "prepare"):
            part.prepare(tasks)


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
        "methods": outside.hashes(plan.recipe)
        if isinstance(plan.recipe, str)
        else {},  # files of the user's that the recipe was read from
    }


def _models(
    plan: Plan, settings: RunSettings, recipe: Recipe, stages: Mapping[str, Any]
) -> dict[str, Policy]:
    common: dict[str, Any] = {"precision": settings.precision, "backbone": settings.backbone}
    models = {
        "policy": Policy.load(
            plan.model,
            lora_rank=settings.lora,
            heads=dict(stages["objective"].heads),
            **common,
        )
    }
    for name, own in _auxiliary(recipe, stages).items():
        if own.source == "teacher":
            if settings.teacher is None:
                raise Refused(f"recipe {recipe.name} needs {NEEDS['teacher']}, which is missing here")
            models[name] = Policy.load(settings.teacher, **common).clone(frozen=True)
            if models[name].tokenizer.backend.get_vocab() != models["policy"].tokenizer.backend.get_vocab():
                raise Refused(f"the teacher '{settings.teacher}' has another vocabulary than '{plan.model}'")
        elif own.source == "copy":
            models[name] = Policy.load(plan.model, lora_rank=settings.lora, heads=dict(own.heads), **common)
        else:
            models[name] = models["policy"].clone(frozen=True)
    return models


def _auxiliary(recipe: Recipe, stages: Mapping[str, Any]) -> dict[str, AuxiliaryModel]:
    wanted = {name for part in stages.values() for name in getattr(part, "reads", ())}
    standard = {name: STANDARD[name] for name in sorted(wanted) if name in STANDARD}
    return {**standard, **recipe.all_auxiliary}


def _assemble(
    plan: Plan,
    settings: RunSettings,
    recipe: Recipe,
    stages: dict[str, Any],
    tasks: TaskSet,
    holdout: Sequence[Task],
    directory: RunDirectory,
    models: dict[str, Policy],
    pool: Pool,
) -> Run:
    policy = models.pop("policy")
    learner = Learner(policy, stages["update"], "policy", plan.seed, settings.micro_tokens, settings.sampling)
    auxiliary: dict[str, Policy | Learner] = {}
    for name, model in models.items():
        own = _auxiliary(recipe, stages)[name]
        trained = own.source == "copy"
        update = type(stages["update"])(lr=own.lr * stages["update"].lr)
        auxiliary[name] = (
            Learner(model, update, name, plan.seed, settings.micro_tokens, settings.sampling)
            if trained
            else model
        )
    sampler = sampler_for(policy, settings.rows)
    generator = Generator(sampler, policy.renderer, settings.sampling, "policy", settings.context)
    generators = {
        name: Generator(
            sampler_for(model, settings.rows), model.renderer, settings.sampling, name, settings.context
        )
        for name, model in auxiliary.items()
        if not isinstance(model, Learner)
    }
    times: dict[str, float] = {}
    return Run(
        plan=plan,
        settings=settings,
        recipe=recipe,
        directory=directory,
        context=RunContext(plan.seed, tasks, learner, settings.sampling, auxiliary, settings.group_size),
        tasks=tasks,
        **stages,
        generator=generator,
        generators=generators,
        check_runner=checks_in(pool, sampler, times),
        pool=pool,
        loop=EventLoop(),
        holdout=list(holdout),
        times=times,
    )


def _difference(old: Any, new: Any, path: str = "") -> str:
    """The first place where two configurations differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                return _difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return f"{path} was {old!r}, is {new!r}"
