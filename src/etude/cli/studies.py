"""`etude studies` and `etude study`: findings that can be tested again on your own model."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.train import Json, Set
from etude.errors import UserError
from etude.printable import filled, say


def add_to(app: typer.Typer) -> None:
    app.command()(studies)
    app.command()(study)


def studies(json: Json = False) -> None:
    """The findings that can be tested here, and what came of them with the settings that were fixed beforehand."""
    from etude.docs.studies import rows

    found = rows()
    if json:
        say(
            jsons.dumps(
                [dict(zip(("name", "year", "question", "outcome"), row, strict=True)) for row in found],
                indent=2,
            )
        )
        return
    for name, year, question, outcome in found:
        say(filled(f"{name} ({year})\n  {question}\n  {outcome}", 2))


def study(
    name: Annotated[str, typer.Argument(help="of `etude studies`, or ./my_study.py")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="default: the study's own")] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", "-t", help="NAME[:param=value,...] or FILE.jsonl; default: the study's own"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="of each run: 5m, 300k-tokens, 2e14-flops or 100-steps; default: the study's own"),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="of every arm", min=1, max=10_000)] = None,
    problems: Annotated[int | None, typer.Option(help="held-out problems", min=2, max=10_000_000)] = None,
    out: Annotated[Path | None, typer.Option(help="where the study lives; started again it goes on")] = None,
    plan: Annotated[
        bool, typer.Option(help="say what it will cost, measured by two steps of each arm, and end")
    ] = False,
    parallel: Annotated[int, typer.Option(help="runs at once", min=1, max=1024)] = 1,
    set: Set = None,
    record: Annotated[
        bool, typer.Option(help="note the outcome in the package, for its pages (of a checkout)")
    ] = False,
    json: Json = False,
) -> None:
    """Test a published finding on your model: arms are trained and measured, and every hypothesis gets a verdict with its
    interval. What is not given is as the study fixed it beforehand. Started again it goes on."""
    from etude.docs.studies import note
    from etude.report.page import write_report
    from etude.studies import find
    from etude.study.session import asked_of, check, estimate, run_study, screen
    from etude.train.config import parse_changes

    found = find(name)
    asked = asked_of(
        found,
        name,
        model=model,
        tasks=tasks,
        budget=budget,
        seeds=seeds,
        problems=problems,
        changes=parse_changes(set or []),
    )
    place = out or Path(f"runs/study-{found.name}")
    tell = lambda text: None if json else say(text, err=True)  # noqa: E731
    if record and asked != asked_of(found, name):
        raise UserError(
            "--record notes a study with its own settings; leave --model, --tasks and the others out"
        )
    if plan:
        check(found, asked, place)
        cost = estimate(name, asked, place, tell)
        if json:
            say(jsons.dumps(cost, indent=2))
            return
        for arm, one in cost["arms"].items():
            say(f"{one['runs']:3d} x {one['seconds']:6.0f} s  {arm}")
        say(f"about {cost['minutes']:.0f} minutes, one after the other")
        return
    results = run_study(name, asked, place, parallel, tell)
    page = write_report(place)
    if record:
        note(results)
    say(jsons.dumps(results, indent=2) if json else f"{screen(results)}\n\npage: {page}")
    if results["failed"]:
        raise typer.Exit(1)
