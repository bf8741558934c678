"""`etude recipes`, `tasks`, `doctor`, `report`, `view` and `show`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.cli.train import Json, On
from etude.errors import UserError, nearest
from etude.printable import filled, say


def add_to(app: typer.Typer) -> None:
    app.command()(recipes)
    app.command()(tasks)
    app.command()(doctor)
    app.command()(report)
    app.command()(view)
    app.command()(show)


def recipes(
    name: Annotated[str | None, typer.Argument(help="one recipe's own page")] = None, json: Json = False
) -> None:
    """All methods, or one method's page: idea, equation, settings, departures, claim."""
    from etude.docs.method_page import one, table
    from etude.docs.remembered import facts, listed

    if json:
        found = facts(name)
        _print(found if name is None else found[0])
    elif name is not None:
        say(filled(one(facts(name)[0])))
    else:
        say(table(listed(), shutil.get_terminal_size((1000, 24)).columns))


def tasks(
    name: Annotated[
        str | None, typer.Argument(help="a task source; or a file, or a spec such as chain_sum:max_terms=2")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="show prompts as this model reads them")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="how many tasks to show", min=1, max=1000)] = 10,
    json: Json = False,
) -> None:
    """Where problems come from, and their parameters; of a file or a spec, its tasks as a model will see them."""
    from etude.tasks import catalogue, is_file, load

    found = {info.name: info.to_dict() for info in catalogue()}
    if name is not None and (name not in found or model is not None):
        from etude.report.preview import drawn, looked_at, screen

        if not re.search(r"[:,/\\.~]", name) and name not in found and not is_file(name):
            raise UserError(f"there is no file, folder or task source '{name}'{nearest(name, found)}")
        chosen = load(name)
        rows = looked_at(drawn(chosen, n), _renderer(model))
        if json:
            _print(rows)
        else:
            say("\n".join([screen(rows), "", *chosen.notes]))
    elif json:
        _print(found[name] if name else list(found.values()))
    elif name:
        say(filled(_page(found[name])))
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        longest = max(map(len, found))
        say("\n".join(f"{i['name']:{longest}}  {i['line']}"[:width].rstrip() for i in found.values()))


def _renderer(model: str | None) -> Any:
    if model is None:
        return None
    from etude.models.policy import Policy

    return Policy.load(model).renderer


def doctor(on: On = None, json: Json = False) -> None:
    """Versions, cores, instruction sets, and the speed of one matrix product. With --on: can a run begin there? Exit code 2
    if not."""
    from etude.doctor import examine, placement, screen

    if on:
        problems = placement(on)
        _print({"problems": problems}) if json else say("\n".join(problems) or "a run can begin there")
        raise typer.Exit(2 if problems else 0)
    found = examine()
    _print(found) if json else say(filled(screen(found), 15))


def report(path: Annotated[Path, typer.Argument(help="a run, or a comparison")]) -> None:
    """Write the run's page: one HTML file that opens offline."""
    from etude.report.page import write_report

    say(str(write_report(path)))


def view(
    directory: Annotated[Path, typer.Argument(help="a folder of runs")] = Path("runs"),
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 0,
    open: Annotated[bool, typer.Option(help="open a browser")] = True,
) -> None:
    """Serve a folder of runs on this machine, live while they train."""
    from etude.report.server import serve

    serve(directory, port=port, open_browser=open)


def show(
    run: Annotated[Path, typer.Argument(help="a run's directory")],
    episode: Annotated[
        str,
        typer.Argument(
            help="STEP-ROW; without it the newest that failed first and succeeded then, or else the newest that was right"
        ),
    ] = "",
    json: Json = False,
) -> None:
    """One recorded episode, turn by turn: who spoke, and what of it was trained."""
    from etude.report.run import RunDirectory
    from etude.report.turns import chosen, screen, turns

    rows = chosen(run, episode)
    if json:
        _print([{"id": row["id"], "origin": row["origin"], "turns": turns(row)} for row in rows])
    else:
        say(screen(rows, RunDirectory.open(run).config.get("history", [])))


def _page(info: dict[str, Any]) -> str:
    lines = [f"{info['name']} ({info['form']})", info["line"]]
    lines += [f"cannot be used: {info['fault']}"] if info.get("fault") else []
    lines += ["", "Parameters (NAME:parameter=value,...):"]
    lines += [f"  {p['name']} = {p['default']}  {p['doc']} ({p['type']})" for p in info["params"]]
    lines += [
        f"Levels: {kind}: {', '.join(f'{x:g}' for x in found)}"
        for kind, found in info["levels"].items()
        if found
    ]
    return "\n".join([*lines, f"Its tasks carry: {', '.join(info['carries']) or 'nothing more'}"])


def _print(value: Any) -> None:
    say(json.dumps(value, indent=2, default=str))
