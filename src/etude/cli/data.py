"""`etude data`: make, choose, mix and check data sets."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.train import Json, Seed
from etude.errors import UserError
from etude.printable import filled, say

if TYPE_CHECKING:  # imports torch
    from etude.data.session import Order

Out = Annotated[Path, typer.Option(help="the data set's directory")]
Items = Annotated[
    int, typer.Option("--items", "-n", help="how many (of `make dart`: questions)", min=1, max=10_000_000)
]
Against = Annotated[
    str,
    typer.Option(help="a task file or generator that nothing may be asked of: what models are examined with"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="RECIPE.NAME=value or run.NAME=value; may be repeated"),
]
Licences = Annotated[
    list[str] | None,
    typer.Option("--licence", help="SOURCE=licence as the source states it; may be repeated"),
]
Overwrite = Annotated[bool, typer.Option(help="replace what is there")]
Model = Annotated[str, typer.Option("--model", "-m", help="who writes or judges; or http://HOST/v1#MODEL")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Makes, chooses, mixes and checks data sets: every item with its origin, every set with a card.",
        no_args_is_help=True,
    )
    for command in (recipes, make, choose, mix, check):
        group.command()(command)
    app.add_typer(group, name="data")


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    found = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--{option} takes NAME=value; got '{pair}'")
        found[name.strip()] = value.strip()
    return found


def recipes(
    name: Annotated[str | None, typer.Argument(help="one of them, in full")] = None, json: Json = False
) -> None:
    """The recipes of data: what each does, and its settings."""
    from etude.data.recipe import catalogue
    from etude.errors import nearest

    known = catalogue()
    if name is not None and name not in known:
        raise UserError(f"there is no recipe of data '{name}'{nearest(name, known)}")
    chosen = known.values() if name is None else [known[name]]
    facts: list[dict[str, Any]] = [
        {
            "name": r.name,
            "verb": r.verb,
            "idea": r.idea,
            "paper": r.paper.url if r.paper else "",
            "settings": {p.name: {"default": v, "meaning": p.setting.meaning} for p, v in r.build},
            "departures": list(r.departures),
        }
        for r in chosen
    ]
    if json:
        say(jsons.dumps(facts, indent=2, default=str))
        return
    for fact in facts:
        lines = [f"etude data {fact['verb']} {fact['name']}  {fact['paper']}".rstrip(), f"    {fact['idea']}"]
        if name is not None:
            for setting, about in fact["settings"].items():
                lines.append(f"    {fact['name']}.{setting} = {about['default']}: {about['meaning']}")
            lines += [f"    departs: {departure}" for departure in fact["departures"]]
        say(filled("\n".join(lines), 2))


def make(
    recipe: Annotated[str, typer.Argument(help="of `etude data recipes`")],
    out: Out,
    tasks: Annotated[
        str,
        typer.Option("--tasks", "-t", help="what items are made of: NAME[:param=value,...] or FILE.jsonl"),
    ] = "",
    model: Model = "smollm2",
    teacher: Annotated[str, typer.Option(help="a second writer: a model, or http://HOST/v1#MODEL")] = "",
    tools: Annotated[str, typer.Option(help="of a recipe that tries tools out: which (docs/agents.md)")] = "",
    items: Items = 100,
    against: Against = "",
    set: Settings = None,
    licence: Licences = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Writes a data set: by the model, by a second one, or by a model behind an address."""
    from etude.data.session import make as made

    given = [*(set or []), *([f"run.tools={tools}"] if tools else [])]
    order = _order(recipe, out, against, given, seed, licence, overwrite, json, items)
    _card(made(order, tasks, model, teacher), json)


def choose(
    recipe: Annotated[str, typer.Argument(help="of `etude data recipes`")],
    file: Annotated[str, typer.Argument(help="the items to choose from, a file that --tasks reads")],
    out: Out,
    model: Model = "smollm2",
    items: Items = 100,
    against: Against = "",
    set: Settings = None,
    licence: Licences = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Chooses some of a file's items."""
    from etude.data.session import choose as chosen

    order = _order(recipe, out, against, set, seed, licence, overwrite, json, items)
    _card(chosen(order, file, model), json)


def mix(
    recipe: Annotated[str, typer.Argument(help="of `etude data recipes`")],
    files: Annotated[list[str], typer.Argument(help="the parts, in the order that the recipe names")],
    out: Out,
    against: Against = "",
    set: Settings = None,
    licence: Licences = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Mixes files into stages, with a pipeline.toml that trains on one after the other."""
    from etude.data.session import mix as mixed

    order = _order(recipe, out, against, set, seed, licence, overwrite, json)
    _card(mixed(order, files), json)


def check(
    file: Annotated[str, typer.Argument(help="a file that --tasks reads")],
    against: Against = "",
    model: Annotated[str, typer.Option("--model", "-m", help="says how surprised it is by the answers")] = "",
    near: Annotated[
        float, typer.Option(help="similarity at which questions are nearly the same", min=0.1, max=1.0)
    ] = 0.8,
    json: Json = False,
) -> None:
    """What is wrong with a data set: empty, repeated and nearly repeated rows, and rows that are asked in an examination. Exit
    code 1 where something was found."""
    from etude.data.checking import check as checked
    from etude.data.checking import check_screen

    facts = checked(file, against, model, near)
    say(jsons.dumps(facts, indent=2) if json else check_screen(facts))
    if facts["found"]:
        raise typer.Exit(1)


def _order(
    recipe: str,
    out: Path,
    against: str,
    set: list[str] | None,
    seed: int,
    licence: list[str] | None,
    overwrite: bool,
    json: bool,
    items: int = 0,
) -> Order:
    from etude.data.session import Order

    changes, licences = _pairs(set, "set"), _pairs(licence, "licence")
    tell = (lambda text: None) if json else (lambda text: say(text, err=True))
    return Order(recipe, out, items, against, changes, seed, licences, overwrite, tell)


def _card(facts: dict[str, Any], json: bool) -> None:
    if json:
        say(jsons.dumps(facts, indent=2))
        return
    for row in facts["filters"]:
        say(f"{row['left']:6d} of {row['of']:6d}  {row['kept']}")
