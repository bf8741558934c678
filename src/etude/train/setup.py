"""From a plan to a run that is ready to move, or a refusal that names what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etude import __version__
from etude import tasks as sources
from etude.assembly import build, resolved_stages
from etude.channels import agree
from etude.errors import Refused, UserError
from etude.evaluate.run import hold_out
from etude.event_loop import EventLoop
from etude.event_loop import run as run_coroutine
from etude.machine import card
from etude.methods import find, outside
from etude.methods.renamed import renamed_settings
from etude.models.device import chosen, named
from etude.models.policy import Policy
from etude.printable import say
from etude.recipe import NEEDS, STANDARD, AuxiliaryModel, Recipe
from etude.report.json_files import plain
from etude.report.run import RunDirectory, check_free, is_run
from etude.rollout.conversation import Generator
from etude.rollout.full import TEACHER
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Sampler
from etude.scale import mirrored
from etude.scale.place import Place
from etude.settings import parameters
from etude.tasks import TaskSet
from etude.tasks.asked import asked
from etude.tasks.isolate import Pool
from etude.tools.kit import Kit
from etude.tools.spec import absolute, described_in, users_own
from etude.tools.spec import sources as tool_sources
from etude.train.config import Plan, sealed
from etude.train.context import RunContext
from etude.train.fitting import fit, hide_labels, missing, unexamined
from etude.train.identity import model_identity
from etude.train.lineage import places, trained_tasks
from etude.train.notes import idle, undecided
from etude.train.put import SYSTEM, put, system_of, worked_examples
from etude.train.rewards import asked_for, rewarded, users_code, with_rewards
from etude.train.run import RewardFunction, Run
from etude.train.settings import RunSettings, run_settings
from etude.train.sharded import ShardedLearner
from etude.train.step import Learner
from etude.train.validation import set_aside
from etude.types import Task

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
    place: Place | None = None,
) -> Run:
    """A new run in directory `out`. `tasks` and `reward` (a function of an episode, `reward.function.from_function`)
    stand in for what the plan names, when the run is made from Python. `wait`: nothing is written before
    `run.directory.begin()`. `place`: where engines sample; None: this process does. Raises UserError before anything is
    sampled."""
    if isinstance(plan.recipe, str):
        plan = plan.but(recipe=outside.absolute(plan.recipe))
    plan, parts = with_rewards(plan, reward)
    if "run.tools" in plan.changes:
        plan = plan.but(changes={**plan.changes, "run.tools": absolute(plan.changes["run.tools"])})
    recipe, settings, stages = resolve(plan)
    why = next((s.in_process for s in stages.values() if getattr(s, "in_process", "")), "")
    if place is not None and place.samples and why:
        raise Refused(f"recipe {recipe.name} {why}; sample in this process, without a table [engines]")
    about = {**describe(plan, recipe, settings), "places": places(plan, settings, tasks is None)}
    config = sealed(about if place is None else {**about, "placement": place.to_dict()})
    tasks = task_set(plan.tasks if tasks is None else tasks)
    holdout = hold_out(tasks, settings.eval_problems, settings.tuning)
    missing(recipe, settings, tasks, plan.seed)
    hide_labels(recipe, settings, tasks)
    prepare(stages, tasks)
    examples = worked_examples(settings, tasks)
    more = {"examples": examples, SYSTEM: system_of(tasks)}
    config = sealed({**config, **{name: value for name, value in more.items() if value}})
    check_free(Path(out), plain(config), overwrite)  # before the model is loaded
    known = [*users_code(tasks, holdout, parts), *users_own(settings.tools)]
    pool = Pool(seconds=settings.check_seconds, known=known)
    directory: RunDirectory | None = None
    kit: Kit | None = None
    try:
        rewarded(stages, parts, pool, settings, reward_weights)
        kit = kit_of(settings, pool)
        models = load_models(config["places"], settings, recipe, stages, place)
        put(models, settings, examples)
        notes = [*idle(recipe, stages, plan.changes), *(undecided(recipe) if parts else ()), *tasks.notes]
        notes += [] if holdout or not settings.eval_problems else unexamined(tasks)
        tasks, holdout = fit(tasks, holdout, models["policy"], settings, notes.extend)
        holdout, validation = apart(config["places"]["model"], tasks, holdout, settings, notes.append)
        made_with = {**card(), "device": named(models["policy"].device), "engine": models["policy"].engine}
        directory = RunDirectory.create(out, config, made_with, overwrite=overwrite, wait=wait)
        tell(notes)
        run = assemble(plan, settings, recipe, stages, tasks, directory, models, pool, place, kit)
        run.holdout, run.validation, run.own_reward = holdout, validation, asked_for(parts)
        run.origin = config["places"]["model"]
        return run
    except BaseException:
        if directory is not None:
            directory.release()
        pool.close()
        if kit is not None:
            kit.close()
        if place is not None:
            run_coroutine(place.close())
        raise


def kit_of(settings: RunSettings, pool: Pool) -> Kit:
    """The tools of the settings; a user's run in `pool`."""
    docs = described_in(settings.tool_docs) if settings.tool_docs else {}
    return Kit(tool_sources(settings.tools, pool), settings.budgets, settings.tool_syntax, docs)


def apart(
    model: str,
    tasks: TaskSet,
    holdout: list[Task],
    settings: RunSettings,
    say: Callable[[str], None],
) -> tuple[list[Task], list[Task]]:
    """The held-out problems, without those that the run whose `model` (its place) is trained further was trained on; and the
    validation problems, which share none with them."""
    validation = set_aside(tasks, holdout, settings)
    if validation:
        say(
            f"{len(validation)} problems are set aside to decide on; they are neither trained on nor examined"
        )
    run = Path(model).parent
    if not Path(model).is_absolute() or not is_run(run):
        return holdout, validation
    known = {asked(task) for task in trained_tasks(run)}
    left = [task for task in holdout if asked(task) not in known]
    if len(left) < len(holdout):
        say(
            f"{len(holdout) - len(left)} of {len(holdout)} held-out problems are left out: '{run}' was trained on them"
        )
    return left, validation


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
        found |= renamed_settings().get(name, {})
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


def tell(notes: Sequence[str]) -> None:
    """Says on standard error what a user should know of the tasks."""
    for note in notes:
        say(note, err=True)


def prepare(stages: Mapping[str, Any], tasks: TaskSet) -> None:
    """Shows the task set to every stage that wants to see it, and may refuse it."""
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
        "settings": plain(settings.__dict__),  # as it is read back
        "stages": stages,
        "methods": outside.hashes(plan.recipe)
        if isinstance(plan.recipe, str)
        else {},  # files of the user's that the recipe was read from
    }


def load_models(
    where: Mapping[str, str],
    settings: RunSettings,
    recipe: Recipe,
    stages: Mapping[str, Any],
    place: Place | None = None,
) -> dict[str, Policy]:
    """The policy and the auxiliary models, from `places`; shared by the ranks of `place`, where it has several."""
    common: dict[str, Any] = {
        name: getattr(settings, name) for name in ("precision", "backbone", "device", "recompute")
    }
    ranks = place.meet(chosen(settings.device)) if place is not None else None
    if ranks is not None and settings.backbone == "native":
        raise UserError("ranks share modules of transformers; leave run.backbone=native or [trainer] out")

    def read(name: str, model: str, **how: Any) -> Policy:
        if ranks is None:
            return Policy.load(model, **common, **how)
        return mirrored.load(ranks, name, model, **common, **how)

    heads = dict(stages["objective"].heads)
    models = {"policy": read("policy", where["model"], lora_rank=settings.lora, heads=heads)}
    for name, own in _auxiliary(recipe, stages, settings).items():
        if own.source == "teacher":
            if settings.teacher is None:
                who = "run.summariser=teacher" if settings.asks_teacher else f"recipe {recipe.name}"
                raise Refused(f"{who} needs {NEEDS['teacher']}, which is missing here")
            models[name] = read(name, where["teacher"]).clone(frozen=True)
            if models[name].tokenizer.backend.get_vocab() != models["policy"].tokenizer.backend.get_vocab():
                raise Refused(
                    f"the teacher '{settings.teacher}' has another vocabulary than '{where['model']}'"
                )
        elif own.source == "copy":
            models[name] = read(name, where["model"], lora_rank=settings.lora, heads=dict(own.heads))
        else:
            models[name] = models["policy"].clone(frozen=True)
    return models


def _auxiliary(recipe: Recipe, stages: Mapping[str, Any], own: RunSettings) -> dict[str, AuxiliaryModel]:
    wanted = {name for part in stages.values() for name in getattr(part, "reads", ())}
    wanted |= {TEACHER} if own.asks_teacher else set()
    standard = {name: STANDARD[name] for name in sorted(wanted) if name in STANDARD}
    return {**standard, **recipe.all_auxiliary}


def assemble(
    plan: Plan,
    settings: RunSettings,
    recipe: Recipe,
    stages: dict[str, Any],
    tasks: TaskSet,
    directory: RunDirectory,
    models: dict[str, Policy],
    pool: Pool,
    place: Place | None = None,
    kit: Kit | None = None,
) -> Run:
    """The run of these parts, as it is before its first step, with nothing held out yet. `place`: where engines sample. `kit`:
    what the policy may call; default: what the settings name."""
    kit = kit or kit_of(settings, pool)
    policy = models.pop("policy")
    shared = place is not None and place.ranks is not None
    learns = ShardedLearner if shared else Learner
    learner = learns(policy, stages["update"], "policy", plan.seed, settings.micro_tokens, settings.sampling)
    auxiliary: dict[str, Policy | Learner] = {}
    for name, model in models.items():
        own = _auxiliary(recipe, stages, settings)[name]
        trained = own.source == "copy"
        update = type(stages["update"])(lr=own.lr * stages["update"].lr)
        auxiliary[name] = (
            learns(model, update, name, plan.seed, settings.micro_tokens, settings.sampling)
            if trained
            else model
        )
    loop = EventLoop()
    sampled_here = mirrored.WholeSampler if shared else sampler_for
    sampler: Sampler = (
        loop.run(place.sampler(policy, settings.rows, settings.context))
        if place is not None and place.samples
        else sampled_here(policy, settings.rows)
    )

    def generating(name: str, model: Policy, sampler: Sampler) -> Generator:
        longest = min(settings.context, model.context)
        return Generator(sampler, model.renderer, settings.sampling, name, longest, kit, *settings.fullness)

    generator = generating("policy", policy, sampler)
    generators = {
        name: generating(name, held, sampled_here(held, settings.rows))
        for name, model in auxiliary.items()
        if not isinstance(model, Learner) or _auxiliary(recipe, stages, settings)[name].sampled
        for held in [model.policy if isinstance(model, Learner) else model]
    }
    if settings.asks_teacher:
        generator = replace(generator, summariser=generators[TEACHER])
    if hasattr(stages["reward"], "bind"):
        stages["reward"].bind({"policy": generator, **generators})
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
        kit=kit,
        loop=loop,
        place=place,
        holdout=[],
        validation=[],
        origin=plan.model,
        identity=model_identity(policy),
        times=times,
    )
