"""Measuring a model by name, directory or run, and reading back what a run was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from etude import tasks as sources
from etude.errors import UserError
from etude.evaluate import suites
from etude.evaluate.abstention import Abstaining
from etude.evaluate.inference import Played, cost
from etude.evaluate.result import EvalResult, from_groups
from etude.evaluate.run import abstaining, answers, attempt, card_of, hold_out
from etude.evaluate.transitions import second_attempt
from etude.event_loop import run as run_coroutine
from etude.models.policy import Policy
from etude.recipe import NEEDS
from etude.report.run import RunDirectory, is_run
from etude.report.terminal import Count
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.tasks.asked import asked
from etude.tasks.files import Listed
from etude.tasks.isolate import Pool
from etude.tools.kit import Kit
from etude.tools.spec import users_own
from etude.train import checkpoint, shards
from etude.train.config import Plan
from etude.train.lineage import found_model, found_tasks, trained_tasks
from etude.train.put import asked_as, put, worked_examples
from etude.train.settings import RunSettings, run_settings
from etude.train.setup import kit_of, resolve, tell
from etude.types import Group, Task

# Settings of a run that also shape an evaluation.
COUNTS = {"max_tokens", "temperature", "top_p", "top_k", "context", "rows"}
Tell = Callable[[Sequence[str]], None]
HELD = 200  # held-out problems of a source that is no file
COUNTS |= {"teacher"}  # of a method that asks a second model
COUNTS |= {"prompt", "system", "examples", "shots", "thinking", "stop"}  # how questions are put
COUNTS |= {"abstain", "confidence"}
COUNTS |= {"device", "precision", "backbone", "check_seconds"}
COUNTS |= {
    "tools",
    "turns",
    "tool_calls",
    "tool_seconds",
    "tool_money",
    "tool_output",
    "tool_syntax",
    "tool_docs",
}


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
    notes: Sequence[str] = ()  # what a user should know of the problems, said once the model is there
    method: Played | None = None  # of inference; None: single attempts


def exam_tasks(
    tasks: str | None,
    suite: str | None,
    problems: int | None,
    models: Sequence[str] = (),
    say: Tell | None = None,
) -> tuple[str, list[Task]]:
    """The name and the problems of a suite (fixed by content hash), or of a task set: of files all their tasks but those
    that one of `models` (a run) trains on, else those that are held out. `problems`: at most so many. `say` takes sentences about
    them."""
    if (tasks is None) == (suite is None):
        raise UserError("give either --tasks or --suite")
    if suite is not None:
        found = suites.load(suite)
        return found.title, list(found.tasks)
    assert tasks is not None
    given = sources.load(tasks)
    say = say or tell
    say(given.notes)
    everything = given.examined()
    if everything is None:
        return tasks, hold_out(given, HELD if problems is None else problems)
    known = set().union(*(trains_on(model) for model in models if is_run(model)))
    fresh = [task for task in everything if asked(task) not in known]
    if not fresh:
        raise UserError(f"the run was trained on all tasks of '{tasks}'; examine it on other tasks")
    if len(fresh) < len(everything):
        say(
            [
                f"{tasks}: {len(everything) - len(fresh)} of {len(everything)} tasks are left out: the run trains on them"
            ]
        )
    return tasks, fresh[:problems]


def trains_on(where: str) -> set[str]:
    """What the tasks ask that a run draws from its files, or, where those cannot be read, that it was trained on."""
    run = RunDirectory.open(where)
    try:
        files = [s for s in found_tasks(run.path, run.config).sources if isinstance(s, Listed)]
    except UserError:
        return {asked(task) for task in trained_tasks(where)}
    return {asked(task) for source in files for task in source.tasks("train")}


def evaluate_model(where: str, exam: Exam) -> EvalResult:
    """`etude eval`: a model by name, directory or run."""
    checked_settings(exam.changes)
    settings: RunSettings = run_settings(run_defaults(where), exam.changes)
    theirs = [part for task in exam.problems for part in (task.check, task.environment) if part]
    theirs += users_own(settings.tools)
    with Pool(seconds=settings.check_seconds, known=theirs) as pool:  # before the model is loaded
        return _examined(where, exam, settings, pool)


def checked_settings(changes: Mapping[str, str]) -> None:
    """UserError for a setting of the run that does not shape an evaluation."""
    if idle := set(changes) & {s.name for s in fields(RunSettings)} - COUNTS:
        raise UserError(
            f"run.{min(idle)} does not count when a model is examined; what counts: {', '.join(sorted(COUNTS))}, and "
            "--problems, -k, --greedy and --seed"
        )


def _examined(where: str, exam: Exam, settings: RunSettings, pool: Pool) -> EvalResult:
    with closing(kit_of(settings, pool)) as kit:
        speaker = speaking(
            where, settings, exam.changes, [exam.method] if exam.method else [], exam.greedy, kit
        )
        tell(exam.notes)
        problems = fitting(exam.problems, speaker.policy, settings.context)
        return examined_by(speaker, where, exam, problems, pool)


@dataclass(frozen=True)
class Speaking:
    """A model that is examined, with the others that a method of inference asks."""

    policy: Policy
    generator: Generator
    others: Mapping[str, Generator]
    abstaining: Abstaining | None = None

    @property
    def flops(self) -> float:
        """What all of them have computed so far."""
        samplers = [g.sampler for g in (self.generator, *self.others.values())]
        return float(sum(s.policy.meter.flops for s in samplers))


def speaking(
    where: str,
    settings: RunSettings,
    changes: Mapping[str, str],
    methods: Sequence[Played],
    greedy: bool = False,
    kit: Kit | None = None,
) -> Speaking:
    """The model `where`, which may call what is in `kit`, and run.teacher where one of `methods` asks it. UserError where it is not named."""
    policy = load_policy(where, settings.precision, settings.backbone, settings.device)
    models = {"policy": policy}
    asking = [m.name for m in methods if "teacher" in m.rollout.reads]
    if asking := [*asking, *(["run.summariser=teacher"] if settings.asks_teacher else [])]:
        if settings.teacher is None:
            raise UserError(f"{asking[0]} asks {NEEDS['teacher']}, which is missing here")
        models["teacher"] = load_policy(
            settings.teacher, settings.precision, settings.backbone, settings.device
        )
    examples = asked_as(where)[1]
    put([*models.values()], settings, worked_examples(settings) if "examples" in changes else examples)
    params = replace(settings.sampling, greedy=greedy)
    made = {
        name: Generator(
            sampler_for(model, settings.rows),
            model.renderer,
            params,
            name,
            min(settings.context, model.context),
            kit or Kit(),
            *settings.fullness,
        )
        for name, model in models.items()
    }
    if settings.asks_teacher:
        made["policy"] = replace(made["policy"], summariser=made["teacher"])
    outcomes = abstaining(settings.abstain, settings.confidence, policy.renderer)
    return Speaking(policy, made.pop("policy"), made, outcomes)


def examined_by(
    speaker: Speaking,
    where: str,
    exam: Exam,
    problems: Sequence[Task],
    pool: Pool,
    show: Callable[[list[Group]], object] | None = None,
) -> EvalResult:
    """The result of `exam` on `problems`, with what its method spent. `show` is given the groups."""
    generator, params = speaker.generator, speaker.generator.params
    samples = 1 if exam.greedy else exam.samples
    check_runner = checks_in(pool, generator.sampler, {})
    rollout = exam.method.rollout if exam.method else second_attempt(exam.again)
    speaker.policy.forget()  # what a method costs depends on itself alone
    before = speaker.flops
    groups = run_coroutine(
        attempt(
            generator,
            check_runner,
            problems,
            samples,
            exam.seed,
            rollout,
            told=Count("problems examined"),
            generators=speaker.others,
        )
    )
    if show is not None:
        show(groups)
    card = card_of(exam.name, where, speaker.policy, params, exam.seed, "given")
    result = from_groups(groups, card, answer=answers(speaker.policy.renderer), abstaining=speaker.abstaining)
    if exam.method is None:
        return result
    return replace(result, inference=cost(exam.method, groups, speaker.flops - before))


def fitting(problems: Sequence[Task], policy: Policy, context: int) -> list[Task]:
    """The problems whose prompts leave room for a reply; those that are left out are counted."""
    limit = min(context, policy.context)
    short = [
        t for t in problems if t.environment or len(policy.renderer.prompt(t.prompt, len(t.prompt))) < limit
    ]
    if not short and problems:
        raise UserError(
            f"no prompt of the {len(problems)} problems has fewer than {limit} tokens; raise run.context"
        )
    if len(short) < len(problems):
        tell(
            [f"{len(problems) - len(short)} of {len(problems)} problems are left out: {limit} tokens or more"]
        )
    return short


def load_policy(where: str, precision: str = "bf16", backbone: str = "auto", device: str = "cpu") -> Policy:
    """A model by name or directory, or a run's: the model that it saved, or its last whole checkpoint."""
    path = Path(where)
    if not is_run(where):
        return Policy.load(where, precision=precision, backbone=backbone, device=device)
    if (path / "model").exists():
        return Policy.load(str(path / "model"), precision=precision, backbone=backbone, device=device)
    return checkpoint_policy(path, device=device)[1]


def checkpoint_policy(run: Path, precision: str | None = None, device: str = "cpu") -> tuple[int, Policy]:
    """The step of a run's last whole checkpoint, and its model as it was trained: with LoRA the adapters apart.
    `precision`: another than the run's own."""
    config = RunDirectory.open(run).config
    step, state, _ = checkpoint.load(run / "checkpoints")
    _, settings, stages = resolve(Plan.from_dict(config["plan"]))
    policy = Policy.load(
        found_model(run, config),
        precision=precision or settings.precision,
        lora_rank=settings.lora,
        heads=dict(stages["objective"].heads),
        backbone=settings.backbone,
        device=device,
    )
    shards.weights(policy, state["learner"], state["folder"])
    return step, policy


def run_defaults(where: str) -> dict[str, Any]:
    """A run is evaluated with the settings that it was trained with, and so is the model that it left."""
    if is_run(where):
        Plan.from_dict(RunDirectory.open(where).config["plan"])
    return asked_as(where)[0]
