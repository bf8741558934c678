"""`etude train`, `resume`, `check` and `demo`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.errors import UserError
from etude.printable import say

Model = Annotated[
    str, typer.Option("--model", "-m", help="smollm2 (comes with etude), a directory, or a hub name")
]
TASKS = typer.Option("--tasks", "-t", help="NAME[:param=value,...][,NAME...] or FILE.jsonl")
Tasks = Annotated[str, TASKS]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="stage.field=value, or run.field=value; repeatable")
]
Seed = Annotated[int, typer.Option("--seed", help="names every random draw of the run")]


def _allow(value: bool) -> bool:
    """Lets this process and its children run programs of the model without a sandbox."""
    if value:
        from etude.tasks.confinement import UNSAFE

        os.environ[UNSAFE] = "1"
    return value


Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe-execution",
        callback=_allow,
        help="run programs that the model writes even where nothing keeps them in (docs/security.md)",
    ),
]
Log = Annotated[
    str, typer.Option(help="also write to: tensorboard, wandb, mlflow, trackio, csv (comma-separated)")
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        help="SOURCE[,weight=...]: check, length, ./mine.py:fn, model:DIR, judge:...; repeatable (docs/rewards.md)",
    ),
]
Prompt = Annotated[str, typer.Option(help="text around every question, which stands for {question} in it")]
System = Annotated[str, typer.Option(help="system message")]
Stop = Annotated[
    list[str] | None, typer.Option(help="text that ends a reply (\\n is a new line); repeatable")
]
Tools = Annotated[
    str | None,
    typer.Option(
        help="what the model may call: python, calculator, search:docs, files, sql:FILE, ./mine.py:fn, mcp:COMMAND (docs/agents.md)"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print facts as JSON")]
On = Annotated[
    Path | None,
    typer.Option("--on", help="a file that says where engines sample, as place.toml (docs/scale.md)"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no line per step")]


def add_to(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(resume)
    app.command()(pipeline)
    app.command()(check)
    app.command()(demo)


def asked(prompt: str, system: str, stop: list[str] | None, tools: str | None = None) -> dict[str, str]:
    """The settings that the options about asking stand for."""
    from etude.parsing import escaped, unescaped

    given = {} if tools is None else {"run.tools": tools}
    stops = ";".join(escaped(unescaped(text)) for text in stop or [])
    said = {"run.prompt": prompt, "run.system": system, "run.stop": stops}
    return {name: value for name, value in said.items() if value} | given


def train(
    recipe: Annotated[
        str, typer.Argument(help="a recipe, ./my_method.py or pkg.module:RECIPE, or several joined with +")
    ],
    model: Model = "smollm2",
    tasks: Annotated[str | None, TASKS] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="FILE of answers of which one is preferred (docs/preferences.md), instead of --tasks"
        ),
    ] = None,
    reward: Rewards = None,
    steps: Annotated[int | None, typer.Option(help="steps to train", min=1)] = None,
    budget: Annotated[
        str | None, typer.Option(help="10m, 500k-tokens or 2e14-flops, instead of --steps")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="the run's directory; default runs/RECIPE-SEED")] = None,
    set: Set = None,
    prompt: Prompt = "",
    system: System = "",
    stop: Stop = None,
    tools: Tools = None,
    keep: Annotated[
        str,
        typer.Option(
            help="best: save the weights that did best on problems set aside for that; else the last"
        ),
    ] = "",
    stop_when: Annotated[
        str, typer.Option(help="accuracy>0.9: end there, by problems set aside for that")
    ] = "",
    force: Annotated[bool, typer.Option(help="train even if the pre-flight sees nothing to learn")] = False,
    overwrite: Annotated[bool, typer.Option(help="delete a run that lies in --out")] = False,
    log: Log = "",
    on: On = None,
    quiet: Quiet = False,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """Train a model with a recipe; evaluates on held-out tasks before and after."""
    from etude.methods import find
    from etude.report.terminal import Progress
    from etude.report.tracking import known
    from etude.scale.place import Place
    from etude.tasks.spec import as_pairs
    from etude.train.config import Budget, Plan, parse_changes
    from etude.train.session import free, run_session
    from etude.train.setup import start

    if steps is not None and budget is not None:
        raise UserError("give either --steps or --budget, not both")
    if (tasks is None) == (pairs is None):
        raise UserError("give either --tasks, or --pairs for answers of which one is preferred")
    known(log)
    tasks = tasks or as_pairs(str(pairs))
    amount = Budget.parse(budget) if budget is not None else Budget(float(steps or 100), "steps")
    short = {"run.keep": keep, "run.stop_when": stop_when}
    changes = parse_changes(set or []) | {name: value for name, value in short.items() if value}
    changes |= asked(prompt, system, stop, tools)
    plan = Plan(recipe, model, tasks, amount, seed, changes, tuple(reward or ()))
    place = Place.read(on) if on else None
    where = out or free(Path("runs") / f"{find(recipe).name}-{seed}")
    run = start(plan, where, overwrite=overwrite, wait=True, place=place)
    _finish(run_session(run, watcher=Progress(amount, quiet or json), force=force, log=log), json)


def resume(
    run: Annotated[Path, typer.Argument(help="a run's directory")],
    steps: Annotated[str, typer.Option(help="steps in all, or +N more")] = "",
    budget: Annotated[str, typer.Option(help="10m, 500k-tokens or 2e14-flops in all, or +10m more")] = "",
    set: Set = None,
    model: Annotated[str, typer.Option("--model", "-m", help="where the model lies that it began with")] = "",
    tasks: Annotated[str, typer.Option("--tasks", "-t", help="where its tasks lie")] = "",
    changed_tasks: Annotated[bool, typer.Option(help="go on although the tasks hold something else")] = False,
    from_: Annotated[
        int | None, typer.Option("--from", help="go back to the checkpoint of this step")
    ] = None,
    log: Log = "",
    on: On = None,
    quiet: Quiet = False,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """Go on with a run from its last checkpoint, exactly as if it had never stopped; or, with other settings, as a branch."""
    from etude.report.terminal import Progress
    from etude.scale.place import Place
    from etude.train.config import parse_changes
    from etude.train.reopen import Change
    from etude.train.reopen import resume as reopen
    from etude.train.session import run_session

    if steps and budget:
        raise UserError("give either --steps or --budget, not both")
    if steps and not re.fullmatch(r"\+?[1-9]\d*", steps):
        raise UserError(f"--steps is '{steps}'; it must be a number of steps, or +N for N more")
    amount = f"{steps}-steps" if steps else budget
    change = Change(amount, parse_changes(set or []), model, changed_tasks, from_)
    again, warnings = reopen(run, tasks or None, change=change, place=Place.read(on) if on else None)
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    watcher = Progress(again.plan.budget, quiet or json)
    _finish(run_session(again, watcher=watcher, fresh=False, log=log), json)


def pipeline(
    file: Annotated[Path, typer.Argument(help="stages of training, as TOML (docs/preferences.md)")],
    out: Annotated[Path, typer.Option(help="where the stages' runs lie; started again it goes on")] = Path(
        "runs/pipeline"
    ),
    force: Annotated[bool, typer.Option(help="train even where a pre-flight sees nothing to learn")] = False,
    quiet: Quiet = False,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """Train in stages declared in a file: imitation, then preferences or a reward model, then rewards. Goes on where it stopped."""
    from etude.report.terminal import Progress, final_screen
    from etude.train.pipeline import PipelineStage, read, run_pipeline

    def watch(stage: PipelineStage) -> Progress:
        if not (quiet or json):
            say(f"stage {stage.name}: {stage.plan.recipe}")
        return Progress(stage.plan.budget, quiet or json)

    found = run_pipeline(read(file), out, watch, force)
    if json:
        _print_json(found)
        return
    for summary in found:
        say(final_screen(summary) if "steps" in summary else f"{summary['run']}: {summary['ended']}")


def check(
    tasks: Annotated[str | None, TASKS] = None,
    pairs: Annotated[
        str | None,
        typer.Option(help="FILE of pairs with known labels, on which --reward is examined instead"),
    ] = None,
    reward: Rewards = None,
    recipe: Annotated[str, typer.Option(help="the recipe that would train")] = "grpo",
    model: Model = "smollm2",
    seed: Seed = 0,
    set: Set = None,
    prompt: Prompt = "",
    system: System = "",
    stop: Stop = None,
    tools: Tools = None,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """The pre-flight alone: would this recipe find anything to learn from? With --pairs: does this reward tell better answers
    from worse ones? Exit code 2 if not."""
    import tempfile

    from etude.train.config import Budget, Plan, parse_changes
    from etude.train.preflight import preflight
    from etude.train.setup import start

    if pairs is not None:
        _calibrate(pairs, reward, json)
        return
    if tasks is None:
        raise UserError("give --tasks, or --pairs with --reward")
    changes = {"run.eval_problems": "0", **parse_changes(set or []), **asked(prompt, system, stop, tools)}
    plan = Plan(recipe, model, tasks, Budget(1, "seconds"), seed, changes, tuple(reward or ()))
    with tempfile.TemporaryDirectory() as place:
        run = start(plan, Path(place) / "check")
        try:
            found = preflight(run)
        finally:
            run.close()
    _print_json(found.to_dict()) if json else say(found.sentence)
    if found.cause:
        raise typer.Exit(2)


def _calibrate(pairs: str, reward: list[str] | None, as_json: bool) -> None:
    """Exit code 2 where the reward is no better than chance on the pairs."""
    from etude.reward.parts import read
    from etude.train.judged_pairs import calibrate

    if not reward:
        raise UserError("--pairs examines a reward: name it with --reward, as in --reward model:DIRECTORY")
    found = calibrate(read(reward), pairs)
    _print_json(found.to_dict()) if as_json else say(found.screen)
    if found.chance:
        raise typer.Exit(2)


def demo(
    out: Annotated[Path, typer.Option(help="the run's directory")] = Path("runs/demo"),
    steps: Annotated[int | None, typer.Option(help="fewer steps than the demo's own", min=1)] = None,
    json: Json = False,
) -> None:
    """The main job on the embedded model: arithmetic with answers that can be checked, in minutes, on a CPU."""
    from etude.cli.demo import plan, screen, second_attempts
    from etude.report.terminal import Progress
    from etude.train.session import run_session
    from etude.train.setup import start

    run = start(plan(steps), out, overwrite=True, wait=True)
    summary = run_session(run, watcher=Progress(run.plan.budget, json))
    again = second_attempts(out)
    _finish({**summary, "second_attempts": again} if json else summary, json)
    if not json:
        say(screen(again))


def _finish(summary: dict[str, Any], as_json: bool) -> None:
    from etude.report.terminal import final_screen

    _print_json(summary) if as_json else say(final_screen(summary))


def _print_json(value: Any) -> None:
    say(json.dumps(value, indent=2, default=str))
