"""`etude recipes`, `tasks`, `doctor`, `report`, `view` and `show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.cli.train import Json
from etude.errors import UserError, nearest
from etude.printable import say


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
    from etude.docs.method_page import facts, one, table

    found = facts(name)
    if json:
        _print(found if name is None else found[0])
    else:
        say(table(found) if name is None else one(found[0]))


def tasks(
    name: Annotated[str | None, typer.Argument(help="one task source")] = None, json: Json = False
) -> None:
    """Where problems come from, and their parameters."""
    from etude.tasks import catalogue

    found = {info.name: info.to_dict() for info in catalogue()}
    if name is not None and name not in found:
        raise UserError(f"there is no task source '{name}'{nearest(name, found)}")
    chosen: Any = found[name] if name else list(found.values())
    if json:
        _print(chosen)
    elif name:
        say(_page(chosen))
    else:
        say("\n".join(f"{i['name']:32} {i['line']}"[:120] for i in chosen))


def doctor(json: Json = False) -> None:
    """Versions, cores, instruction sets, and the speed of one matrix product."""
    from etude.doctor import examine, screen

    found = examine()
    _print(found) if json else say(screen(found))


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
        str, typer.Argument(help="STEP-ROW; without it the newest that failed first and succeeded then")
    ] = "",
    json: Json = False,
) -> None:
    """One recorded episode, turn by turn: who spoke, and what of it was trained."""
    from etude.report.turns import chosen, screen, turns

    rows = chosen(run, episode)
    if json:
        _print([{"id": row["id"], "origin": row["origin"], "turns": turns(row)} for row in rows])
    else:
        say(screen(rows))


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
