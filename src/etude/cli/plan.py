"""`etude plan` and `etude init`, and plan files in the place of a recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.cli.train import Model, Seed, Set
from etude.errors import UserError
from etude.printable import say

TAKE_PLANS = ("train", "compare", "check", "plan")  # commands
TRIES = 4  # lengths of replies that `init` tries


def add_to(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(init)


def expanded(words: Sequence[str], group: Any) -> list[str]:
    """A command line in which a plan file is replaced by what it says; what is given beside it counts more."""
    found = list(words)
    if len(found) < 2 or found[0] not in TAKE_PLANS or found[1].startswith("-"):
        return found
    from etude.train.plan_file import is_plan, read

    if not is_plan(found[1]):
        return found
    file, command = read(found[1]), found[0]
    if file.sweep and command == "train":
        say("etude: the plan holds a sweep: its arms are compared on tuning problems", err=True)
        command = "compare"
    options: dict[str, bool] = {}
    for parameter in group.commands[command].params:
        if parameter.param_type_name == "option":
            options |= {o.lstrip("-"): parameter.is_flag for o in parameter.opts if o.startswith("--")}
    for word in found[2:] if command != found[0] else ():
        if word.startswith("--") and word.partition("=")[0].lstrip("-") not in (*options, "help"):
            raise UserError(
                f"'{found[1]}' holds a sweep, which `etude compare` runs, and that has no option {word}"
            )
    said = file.words(options, compare=command == "compare")
    if command == "check":
        said[:1] = ["--recipe", said[0]]
    if given := {"--steps", "--budget"} & {w.partition("=")[0] for w in found[2:]}:
        for name in {"--steps", "--budget"} - given:  # the one replaces the other
            if name in said:
                at = said.index(name)
                del said[at : at + 2]
    return [command, *said, *found[2:]]


def plan(
    recipe: Annotated[str, typer.Argument(help="a recipe, or a plan file to complete")] = "grpo",
    model: Model = "smollm2",
    tasks: Annotated[str, typer.Option("--tasks", "-t", help="NAME[:param=value,...] or FILE.jsonl")] = "",
    steps: Annotated[int | None, typer.Option(help="steps to train", min=1)] = None,
    budget: Annotated[str | None, typer.Option(help="10m, 500k-tokens or 2e14-flops")] = None,
    seed: Seed = 0,
    set: Set = None,
    schema: Annotated[bool, typer.Option(help="a JSON schema of plan files, for editors")] = False,
) -> None:
    """Write a plan with every setting that it resolves to, as TOML: `etude plan grpo -t mine.jsonl > plan.toml`."""
    from etude.train import plan_file
    from etude.train.config import Budget, Plan, parse_changes

    if schema:
        say(json.dumps(plan_file.schema(), indent=2))
        return
    if not tasks:
        raise UserError("name tasks, as in `etude plan grpo -t mine.jsonl`")
    amount = Budget.parse(budget) if budget else Budget(float(steps or 100), "steps")
    say(plan_file.written(Plan(recipe, model, tasks, amount, seed, parse_changes(set or []))).rstrip("\n"))


def init(
    out: Annotated[Path, typer.Argument(help="the file to write")] = Path("plan.toml"),
    force: Annotated[bool, typer.Option(help="write over a file that is there")] = False,
) -> None:
    """Ask five questions, try the answers, and write a plan that can learn."""
    from etude.files import write_atomically
    from etude.methods import find
    from etude.tasks import load
    from etude.train.config import Budget

    if out.exists() and not force:
        raise UserError(f"'{out}' is there already; name another file, or --force")
    model = typer.prompt("Which model (smollm2, a directory, or a hub name)", default="smollm2", err=True)
    tasks = _asked(
        "Which tasks (a file, or a name from `etude tasks`)", "chain_sum:max_terms=2,max_digits=2", load
    )
    recipe = _asked("Which method (`etude recipes` lists them)", "grpo", find)
    budget = _asked("How long (10m, 2h, 500k-tokens, 100-steps)", "10m", Budget.parse)
    length = int(typer.prompt("Longest reply in tokens", default=64, type=int, err=True))
    settings = _can_learn(recipe, model, tasks, budget, {"run.max_tokens": length})
    values = {"recipe": recipe, "model": model, "tasks": tasks, "budget": budget, "seed": 0}
    text = "\n".join(
        [
            f"# etude train {out}       every setting with its meaning: etude plan {out}",
            *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()),
            "",
            "[run]",
            *(f"{path.removeprefix('run.')} = {value}" for path, value in settings.items()),
        ]
    )
    write_atomically(out, text + "\n")
    say(f"written: {out}; train with `etude train {out}`")


def _asked(question: str, default: str, read: Any) -> str:
    """An answer that `read` takes; asked again after one that it does not."""
    while True:
        answer = str(typer.prompt(question, default=default, err=True)).strip()
        try:
            read(answer)
            return answer
        except UserError as error:
            say(f"  {error}", err=True)


def _can_learn(recipe: str, model: str, tasks: str, budget: str, settings: dict[str, int]) -> dict[str, int]:
    """The settings with which the pre-flight finds something to learn from; replies are made longer where they are cut
    off. Raises UserError with the pre-flight's sentence where that does not help."""
    import tempfile

    from etude.train.config import Budget, Plan
    from etude.train.preflight import preflight
    from etude.train.setup import start

    for _ in range(TRIES):
        changes = {k: str(v) for k, v in {**settings, "run.eval_problems": 0}.items()}
        with tempfile.TemporaryDirectory() as place:
            run = start(Plan(recipe, model, tasks, Budget.parse(budget), 0, changes), Path(place) / "check")
            try:
                found = preflight(run)
            finally:
                run.close()
        say(f"  pre-flight: {found.sentence}", err=True)
        if not found.cause:
            return settings
        if found.cause != "length":
            break
        settings = {**settings, "run.max_tokens": 2 * settings["run.max_tokens"]}
        say(f"  trying replies of {settings['run.max_tokens']} tokens", err=True)
    raise UserError(f"nothing was written, since nothing can be learned: {found.sentence}")
