"""`etude train`, `resume`, `check` and `demo`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.errors import UserError
from etude.printable import say

Model = Annotated[
    str, typer.Option("--model", "-m", help="smollm2 (comes with etude), a directory, or a hub name")
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", help="NAME[:param=value,...][,NAME...] or FILE.jsonl")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="stage.field=value, or run.field=value; repeatable")
]
Seed = Annotated[int, typer.Option("--seed", help="names every random draw of the run")]


def _allow(value: bool) -> bool:
    """Lets this process and its children run programs of the model without a sandbox."""
    if value:
        from etude.tasks.sandbox import UNSAFE

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
Json = Annotated[bool, typer.Option("--json", help="print facts as JSON")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no line per step")]


def add_to(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(resume)
    app.command()(check)
    app.command()(demo)


def train(
    recipe: Annotated[
        str, typer.Argument(help="a recipe, ./my_method.py or pkg.module:RECIPE, or several joined with +")
    ],
    model: Model = "smollm2",
    tasks: Tasks = ...,  # type: ignore[assignment]
    steps: Annotated[int | None, typer.Option(help="steps to train", min=1)] = None,
    budget: Annotated[
        str | None, typer.Option(help="10m, 500k-tokens or 2e14-flops, instead of --steps")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="the run's directory; default runs/RECIPE-SEED")] = None,
    set: Set = None,
    force: Annotated[bool, typer.Option(help="train even if the pre-flight sees nothing to learn")] = False,
    overwrite: Annotated[bool, typer.Option(help="delete a run that lies in --out")] = False,
    log: Annotated[str, typer.Option(help="also write to: tensorboard, wandb (comma-separated)")] = "",
    quiet: Quiet = False,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """Train a model with a recipe; evaluates on held-out tasks before and after."""
    from etude.methods import find
    from etude.report.terminal import Progress
    from etude.report.writers import known
    from etude.train.config import Budget, Plan, parse_changes
    from etude.train.session import free, run_session
    from etude.train.setup import start

    if steps is not None and budget is not None:
        raise UserError("give either --steps or --budget, not both")
    known(log)
    amount = Budget.parse(budget) if budget is not None else Budget(float(steps or 100), "steps")
    plan = Plan(recipe, model, tasks, amount, seed, parse_changes(set or []))
    run = start(
        plan, out or free(Path("runs") / f"{find(recipe).name}-{seed}"), overwrite=overwrite, wait=True
    )
    _finish(run_session(run, watcher=Progress(amount, quiet or json), force=force, log=log), json)


def resume(
    run: Annotated[Path, typer.Argument(help="a run's directory")],
    log: Annotated[str, typer.Option(help="also write to: tensorboard, wandb")] = "",
    quiet: Quiet = False,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """Go on with a run from its last checkpoint, exactly as if it had never stopped."""
    from etude.report.terminal import Progress
    from etude.train.session import run_session
    from etude.train.setup import resume as reopen

    again, warnings = reopen(run)
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    watcher = Progress(again.plan.budget, quiet or json)
    _finish(run_session(again, watcher=watcher, fresh=False, log=log), json)


def check(
    tasks: Tasks,
    recipe: Annotated[str, typer.Option(help="the recipe that would train")] = "grpo",
    model: Model = "smollm2",
    seed: Seed = 0,
    set: Set = None,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """The pre-flight alone: would this recipe find anything to learn from? Exit code 2 if not."""
    import tempfile

    from etude.train.config import Budget, Plan, parse_changes
    from etude.train.preflight import preflight
    from etude.train.setup import start

    changes = {"run.eval_problems": "0", **parse_changes(set or [])}
    plan = Plan(recipe, model, tasks, Budget(1, "steps"), seed, changes)
    with tempfile.TemporaryDirectory() as place:
        run = start(plan, Path(place) / "check")
        try:
            found = preflight(run)
        finally:
            run.close()
    _print_json(found.to_dict()) if json else say(found.sentence)
    if found.cause:
        raise typer.Exit(2)


def demo(
    out: Annotated[Path, typer.Option(help="the run's directory")] = Path("runs/demo"),
    steps: Annotated[int | None, typer.Option(help="fewer steps than the demo's own", min=1)] = None,
    json: Json = False,
) -> None:
    """The main job on the embedded model: arithmetic with answers that can be checked, in minutes, on a CPU."""
    from etude.cli.demo import plan
    from etude.report.terminal import Progress
    from etude.train.session import run_session
    from etude.train.setup import start

    run = start(plan(steps), out, overwrite=True, wait=True)
    _finish(run_session(run, watcher=Progress(run.plan.budget, json)), json)


def _finish(summary: dict[str, Any], as_json: bool) -> None:
    from etude.report.terminal import final_screen

    _print_json(summary) if as_json else say(final_screen(summary))


def _print_json(value: Any) -> None:
    say(json.dumps(value, indent=2, default=str))
