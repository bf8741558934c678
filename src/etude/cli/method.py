"""`etude new method` and `etude try`: a method of one's own, from a skeleton to a first comparison."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.errors import UserError
from etude.printable import say

STEPS, SEEDS = 20, 3  # of `etude try`: about a minute of two cores
NAME = "my_method"  # in the skeleton


def add_to(app: typer.Typer) -> None:
    new = typer.Typer(no_args_is_help=True, help="Write a file to start from.")
    new.command("method")(new_method)
    app.add_typer(new, name="new")
    app.command("try")(try_method)


def new_method(name: Annotated[str, typer.Argument(help="the method's name, as in my_method")]) -> None:
    """Write NAME.py, a small method that works, with its own credit, loss and test rows."""
    from etude.methods import catalogue
    from etude.testing import skeleton

    path = Path(f"{name}.py")
    if not name.isidentifier():
        raise UserError(f"a method's name consists of letters, digits and _; got '{name}'")
    if name in catalogue():
        raise UserError(f"there is a recipe '{name}' already; choose another name")
    if path.exists():
        raise UserError(f"'{path}' exists already and is left as it is; choose another name or move it")
    path.write_text(Path(skeleton.__file__).read_text(encoding="utf-8").replace(NAME, name), encoding="utf-8")
    say(f"{path} is there and works as it is. Next:\n")
    say(f"  etude try ./{path}\n  etude train ./{path} --model lab --tasks lab")


def try_method(
    method: Annotated[str, typer.Argument(help="./my_method.py, pkg.module:RECIPE, or a recipe's name")],
    quick: Annotated[bool, typer.Option(help="no training, only the laws and the numbers")] = False,
    steps: Annotated[int, typer.Option(help="steps of each run", min=1)] = STEPS,
    seeds: Annotated[
        int, typer.Option(help="runs with the method, and as many with GRPO", min=2, max=10_000)
    ] = SEEDS,
) -> None:
    """Is this method sound? The laws of a step, its own numbers, and a minute on the laboratory against GRPO.
    Exit code 2 if anything is broken."""
    from etude.methods import find
    from etude.testing.trial import put_to_trial

    recipe = find(method)
    trial = put_to_trial(recipe)
    say(f"{recipe.name} replaces {', '.join(recipe.replaces) or 'nothing'}\n{trial}")
    if trial.broken:
        say(f"\n{len(trial.broken)} broken; mend that first.")
        raise typer.Exit(2)
    if not quick:
        say(f"\nagainst GRPO on the laboratory, {steps} steps, {seeds} seeds each:")
        say(_against_grpo(method, recipe.name, steps, seeds))


def _against_grpo(method: str, name: str, steps: int, seeds: int) -> str:
    """Both trained from the same model on the same tasks for equally many steps, and what that shows."""
    from etude.compare.arms import Arm
    from etude.compare.comparison import Comparison, run_comparison
    from etude.lab.tasks import MAX_TOKENS
    from etude.methods import outside
    from etude.train.config import Budget

    if name == "grpo":
        return "  this is GRPO itself"
    arms = [Arm("grpo", "grpo"), Arm(name, outside.absolute(method))]
    changes = {
        "run.max_tokens": str(MAX_TOKENS),
        "update.lr": "1e-4",
        "run.evals": "0",
        "run.eval_samples": "2",
    }
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "comparison"
        comparison = Comparison(arms, "lab", "lab", Budget(steps, "steps"), range(seeds), out, changes, 2)
        try:
            results = run_comparison(comparison, lambda text: say(f"  {text}", err=True))
        except UserError as refusal:
            return f"  not run: {refusal}"
    more = f"etude compare grpo {method} --model lab --tasks lab --budget {10 * steps}-steps --seeds 5"
    return f"{_sentences(results, name, steps, seeds)}\n  For more: {more}"


def _sentences(results: dict[str, Any], name: str, steps: int, seeds: int) -> str:
    arms = {arm["name"]: arm for arm in results["arms"]}
    lines = [
        f"  {label:12} {100 * arms[label]['final']['mean']:5.1f} % right"
        for label in ("untrained", "grpo", name)
        if arms[label]["final"]
    ]
    mine = arms[name]
    if mine["cause"] or not mine["difference"]:
        return "\n".join([*lines, f"  not compared: {mine['cause'] or results['verdict']}"])
    d = mine["difference"]
    lines += [
        f"  {name} - grpo: {d['points']:+.1f} points, 95 % interval [{d['low']:+.1f}, {d['high']:+.1f}]",
        f"  {seeds} seeds of {steps} steps show little: an effect smaller than {(d['high'] - d['low']) / 2:.0f} "
        "points could not be seen, and what is seen holds for this small model and these settings.",
    ]
    return "\n".join(lines)
