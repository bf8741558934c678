"""`etude runs`, `diff` and `rm`: what runs there are, what two of them have different, and an end of them."""

from __future__ import annotations

import json as jsons
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.train import Json
from etude.errors import UserError
from etude.printable import say

ANY = 400  # columns where no terminal says how many there are


def add_to(app: typer.Typer) -> None:
    app.command()(runs)
    app.command()(diff)
    app.command()(rm)


def runs(
    directory: Annotated[Path, typer.Argument(help="a folder of runs")] = Path("runs"), json: Json = False
) -> None:
    """All runs of a folder: what was trained, how far it came, and what that brought."""
    from etude.report import listing

    found = listing.runs(directory)
    if json:
        say(jsons.dumps(found, indent=2))
    else:
        say(listing.screen(found, directory, _width()))


def diff(
    first: Annotated[Path, typer.Argument(help="a run's directory")],
    second: Annotated[Path, typer.Argument(help="another's")],
    json: Json = False,
) -> None:
    """What two runs have different: settings, tasks, model, environment, results."""
    from etude.compare import two_runs

    found = two_runs.difference(first, second)
    if json:
        say(jsons.dumps(found, indent=2, default=str))
    else:
        say(two_runs.screen(found, (str(first), str(second)), _width()))


def rm(
    runs: Annotated[list[Path], typer.Argument(help="directories of runs")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Delete runs, with their checkpoints and models."""
    from etude.report import listing
    from etude.report.lock import holder
    from etude.report.run import RunDirectory

    chosen = list({path.resolve(): RunDirectory.open(path) for path in runs}.values())
    for run in chosen:
        for place in (run.path.resolve(), *run.path.resolve().parents[:3]):  # a comparison holds its own lock
            if pid := holder(place):
                raise UserError(f"process {pid} is at work on '{place}'; nothing was deleted")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nothing was deleted: where nobody can be asked, --yes is needed")
        say(listing.screen([listing.facts(run.path) for run in chosen], Path(), _width()), err=True)
        if not typer.confirm(
            "Delete " + ("this run?" if len(chosen) == 1 else f"these {len(chosen)} runs?"), err=True
        ):
            say("nothing was deleted", err=True)
            return
    for run in chosen:
        left = run.remove()
        kept = f"; what is no part of it stays: {', '.join(left)}" if left else ""
        say(f"deleted: {run.path}{kept}")


def _width() -> int:
    return shutil.get_terminal_size((ANY, 24)).columns
