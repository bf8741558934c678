"""A whole session: pre-flight, evaluation, training, evaluation, model, page. The command line and Python call the same.

run = train("grpo", model="smollm2", tasks="chain_sum:max_terms=2", budget="5m")
run.before, run.after, run.report(), run.save("my-model")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from etude.errors import Refused, UserError
from etude.evaluate.result import EvalResult
from etude.printable import say
from etude.recipe import Recipe
from etude.report.page import write_report
from etude.report.run import RunDirectory, is_run
from etude.report.tracking import Trackers, known
from etude.scale.place import Place
from etude.tasks import TaskSet
from etude.tools.spec import text_of
from etude.train import forecast, loop, plan_file, reopen, setup
from etude.train.config import Budget, Plan, as_text
from etude.train.interrupt import Interrupted, patient
from etude.train.measure import Exam, evaluate_model, exam_tasks
from etude.train.preflight import preflight
from etude.train.reopen import Change
from etude.train.run import RewardFunction, Run
from etude.train.trained import TrainedRun
from etude.train.validation import choose
from etude.train.watching import Bar, Examined, Watcher
from etude.types import Task

GIVEN = "given from Python"  # stands for tasks in a plan
IN_PLANS = ("model", "tasks", "budget", "seed", "out", "log", "force", "overwrite", "on")
"""Options of a plan file that `train` takes."""


def train(
    recipe: str | Recipe,
    model: str | None = None,
    tasks: str | TaskSet | Sequence[Task] | None = None,
    budget: str | Budget | int | None = None,
    *,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    reward: RewardFunction | None = None,
    reward_weights: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    log: str = "",
    progress: bool = True,
    on: str | Path | None = None,
    tools: str | Sequence[Any] | None = None,
) -> TrainedRun:
    """Trains `model` (default: smollm2) with `recipe` and evaluates it on held-out tasks before and after.

    `recipe`: its name, a Recipe, or a plan file, "plan.toml", beside which what is given here counts more. `tasks`: text such as "chain_sum:max_terms=2" or "mine.jsonl", a TaskSet, or a list of Tasks. `budget`: "5m",
    "500k-tokens", "2e14-flops", a Budget, or a number of steps. `settings`: {"update.lr": 1e-5, "run.group_size": 4}.
    `reward`: a function of an episode that gives a bool, a number or named parts (`reward.function.from_function`), or parts such
    as ["check", "model:DIRECTORY,weight=0.5", function] (`reward.parts`). `out`: the run's directory
    (default: runs/RECIPE-SEED). `force` trains even if the pre-flight sees nothing to learn. `log`: "tensorboard",
    "wandb", "mlflow", "trackio", "csv" (`report.trackers`). `on`: a file that says where engines sample (docs/scale.md). `tools`:
    what the policy may call, as text or a list of typed functions, classes and texts (docs/agents.md). Raises UserError in one sentence for what cannot be used, Refused where nothing can be learned.
    """
    if isinstance(recipe, str) and plan_file.is_plan(recipe):
        file = plan_file.read(recipe)
        said = file.arguments(IN_PLANS, ("prompt", "system", "keep", "stop_when"))
        given = {"model": model, "tasks": tasks, "budget": budget, "seed": seed, "out": out, "on": on}
        more: dict[str, Any] = {**said, **{name: value for name, value in given.items() if value is not None}}
        more["settings"] = {**said["settings"], **(settings or {})}
        more |= {
            "force": force or said.get("force", False),
            "overwrite": overwrite or said.get("overwrite", False),
        }
        more["log"] = log or said.get("log", "")
        if file.sweep:
            raise UserError(f"'{recipe}' holds a sweep, which is a comparison: etude.compare('{recipe}')")
        weights: dict[str, Any] = {"reward": reward, "reward_weights": reward_weights}
        return train(file.one(), progress=progress, tools=tools, **weights, **more)
    if tools is not None:
        settings = {**(settings or {}), "run.tools": text_of(tools)}
    model, budget, seed = model or "smollm2", budget or "100-steps", seed or 0
    if tasks is None:
        raise UserError("tasks is missing; name some, as in tasks='chain_sum:max_terms=2'")
    named = tasks if isinstance(tasks, str) else GIVEN
    known(log)
    plan = Plan(recipe, model, named, Budget.of(budget), seed, settings or {})
    name = recipe.name if isinstance(recipe, Recipe) else Path(recipe).stem
    place = Path(out) if out is not None else free(Path("runs") / f"{name}-{seed}")
    run = setup.start(
        plan,
        place,
        None if isinstance(tasks, str) else setup.task_set(tasks),
        reward,
        overwrite,
        reward_weights,
        wait=True,
        place=Place.read(on) if on is not None else None,
    )
    run_session(run, watcher=Bar(run.plan.budget) if progress else None, force=force, log=log)
    return TrainedRun(place)


def resume(
    path: str | Path | TrainedRun,
    tasks: str | TaskSet | Sequence[Task] | None = None,
    reward: RewardFunction | None = None,
    recipe: Recipe | None = None,
    reward_weights: Mapping[str, float] | None = None,
    log: str = "",
    progress: bool = True,
    *,
    budget: str = "",
    settings: Mapping[str, Any] | None = None,
    model: str = "",
    changed_tasks: bool = False,
    from_step: int | None = None,
    on: str | Path | None = None,
    tools: Sequence[Any] = (),
) -> TrainedRun:
    """Goes on with a run from its last checkpoint, exactly as if it had never stopped. Tasks, reward and recipe that
    were given as objects are given again.

    Whatever else is given makes a branch of it, which the run records with the step: `budget`, in all ("200-steps") or more
    ("+10m"); `settings` ({"update.lr": 1e-6}); `changed_tasks`, to go on though the tasks hold something else; `from_step`, an
    earlier checkpoint. `tools`: functions that were given as such. `model` and `tasks` (as text) say where these lie now."""
    text_of(tools)
    place = path.path if isinstance(path, TrainedRun) else Path(path)
    if tasks is None and RunDirectory.open(place).config["plan"]["tasks"] == GIVEN:
        raise UserError(
            f"the tasks of '{place}' were given from Python; give them again: resume(path, tasks=...)"
        )
    changes = {name: as_text(value) for name, value in (settings or {}).items()}
    change = Change(budget, changes, model, changed_tasks, from_step)
    engines = Place.read(on) if on is not None else None
    run, warnings = reopen.resume(place, tasks, reward, recipe, reward_weights, change, engines)
    watcher = Bar(run.plan.budget) if progress else None
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    run_session(run, watcher=watcher, fresh=False, log=log)
    return TrainedRun(place)


def load(path: str | Path) -> TrainedRun:
    """The run at `path`. UserError where there is none."""
    return TrainedRun(RunDirectory.open(path).path)


def evaluate(
    model: str | Path | TrainedRun,
    tasks: str | Sequence[Task] | None = None,
    *,
    suite: str | None = None,
    problems: int | None = None,
    samples: int = 8,
    seed: int = 0,
    greedy: bool = False,
    settings: Mapping[str, Any] | None = None,
    again: str = "",
    tools: str | Sequence[Any] | None = None,
) -> EvalResult:
    """Accuracy on the tasks of a file (those that a run trains on left out), on held-out problems of a generator, on exactly these Tasks where a list is given, or on a fixed `suite`.
    `model`: smollm2, a model directory, a hub name, or a run. `settings`: {"max_tokens": 64}. `again`: how a second
    attempt is made (`evaluate.transitions.AGAIN`). `tools`: as for `train`; default: those of the run. UserError for what cannot be used."""
    notes: list[str] = []
    where = str(model.path if isinstance(model, TrainedRun) else model)
    if tasks is None or isinstance(tasks, str):
        name, held = exam_tasks(tasks, suite, problems, [where], notes.extend)
    else:
        name, held = GIVEN, list(tasks)
    changes = {k.removeprefix("run."): as_text(v) for k, v in (settings or {}).items()}
    changes |= {} if tools is None else {"tools": text_of(tools)}
    return evaluate_model(where, Exam(name, held, samples, seed, greedy, changes, again, notes))


def run_session(
    run: Run,
    *,
    watcher: Watcher | None = None,
    fresh: bool = True,
    force: bool = False,
    log: str = "",
    keep_model: bool = True,
    before: bool = True,
) -> dict[str, Any]:
    """Pre-flight, evaluation, training, evaluation, model; returns `summary_of` the run. `fresh`: the run has just been
    started, not resumed. `before`: the untrained model is evaluated too. Where a `watcher` looks on, Ctrl-C waits for the end of
    a step (`train.interrupt`). The run is closed, and resumable, whatever
    happens. Raises Refused where the pre-flight sees nothing to learn, unless `force`."""
    trackers: Trackers | None = None

    first, elapsed = run.context.step, 0.0

    def on_step(step: int, metrics: dict[str, Any]) -> None:
        nonlocal elapsed
        if watcher:
            watcher(step, metrics, run.context.progress)
            if step == first + 2:  # the first one also warms up
                watcher.say(forecast.measured(metrics, metrics["seconds"] - elapsed, run))
        elapsed = metrics["seconds"]
        if trackers:
            trackers.step(step, metrics)

    run.on_step = on_step
    if watcher:
        run.on_examined = Examined(watcher)
        watcher.say(f"model: {run.learner.policy.described}")
        for sentence in forecast.sentences(run):
            watcher.say(sentence)
    try:
        if fresh:
            known(log)
            found = preflight(run)
            if watcher:
                watcher.say(f"pre-flight: {found.sentence}")
            if found.cause and not (force or run.settings.skip_preflight):
                raise Refused(f"nothing can be learned: {found.sentence} (--force trains all the same)")
            run.directory.begin()
            run.checkpoint()
        run.directory.forget_end()
        trackers = Trackers(log, run.directory)
        if run.holdout and before and run.origin and not _evaluated(run, "before"):
            run.evaluate_start()
        with patient(watcher.say) if watcher else nullcontext(run.stopping) as run.stopping:
            loop.train(run)
        rule, spent = choose(run)
        if run.holdout and not _evaluated(run, rule, spent["step"]):
            run.evaluate(rule, spent)
        summary = summary_of(run, run.save_model() if keep_model else None)
        run.directory.write_end("finished", summary["ended"])
        return summary
    except Interrupted as interrupted:
        if watcher:
            watcher.say(str(interrupted))
        raise
    except Refused as refused:
        if is_run(run.directory.path):
            run.directory.write_end("refused", str(refused).splitlines()[0])
        raise
    finally:
        if trackers:
            trackers.close()
        run.close()
        if isinstance(watcher, Bar):
            watcher.close()


def _evaluated(run: Run, rule: str, since: int = 0) -> bool:
    """Whether an evaluation of this rule was made at step `since` or later."""
    return any(e.get("rule") == rule and e["step"] >= since for e in run.directory.evals())


def summary_of(run: Run, model: Path | None) -> dict[str, Any]:
    """The facts of the last screen, all read back from disk."""
    evals, metrics = run.directory.evals(), run.directory.metrics()
    last = metrics[-1] if metrics else {}
    return {
        "run": str(run.directory.path),
        "recipe": run.recipe.name,
        "steps": run.context.step,
        "ended": run.ending,
        "minutes": last.get("seconds", 0.0) / 60,
        "tokens": {k.removeprefix("tokens/"): v for k, v in last.items() if k.startswith("tokens/")},
        "flops": last.get("flops", 0.0),
        "before": next((e for e in evals if e.get("rule") == "before"), None),
        "after": next((e for e in reversed(evals) if TrainedRun(run.directory.path).chosen(e)), None),
        "history": run.directory.config.get("history", []),
        "model": str(model) if model else None,
        "report": str(write_report(run.directory.path)) if model else None,
    }


def free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that is not taken."""
    number = 2
    unused = path
    while unused.exists():
        unused, number = path.with_name(f"{path.name}-{number}"), number + 1
    return unused
