"""`etude claims`: does what a paper claims show here?"""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.train import Json
from etude.errors import UserError, nearest
from etude.printable import filled, say

if TYPE_CHECKING:
    from etude.claims.settings import Claim


def add_to(app: typer.Typer) -> None:
    app.command()(claims)


def claims(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            help="recipes with a claim, ./my_method.py, or pkg.module:RECIPE; none: a list of all"
        ),
    ] = None,
    on: Annotated[str, typer.Option(help="the bed")] = "lab",
    family: Annotated[str, typer.Option(help="all recipes of a topic, such as policy_gradient")] = "",
    file: Annotated[
        Path | None, typer.Option(help="claims of your own, written as those of the package")
    ] = None,
    against: Annotated[
        str, typer.Option(help="the baseline of a method that has no claim in the file")
    ] = "grpo",
    plan: Annotated[
        bool, typer.Option(help="say how long it will take, measured by three steps of each arm")
    ] = False,
    trial: Annotated[int, typer.Option(help="so many updates instead; not recorded", min=0)] = 0,
    parallel: Annotated[
        int, typer.Option(help="runs at once, one thread each; 0: one for each core", min=0)
    ] = 0,
    out: Annotated[Path, typer.Option(help="where runs and results are kept")] = Path("runs/claims"),
    record: Annotated[
        bool, typer.Option(help="note results in the package, for its pages (of a checkout)")
    ] = False,
    json: Json = False,
) -> None:
    """Test published claims with settings fixed beforehand: gates first, then a verdict at equal updates and one at equal
    FLOPs. Started again it goes on. Without a recipe, a family or a file: which claims there are, and what came of them."""
    from etude.claims.cost import estimate
    from etude.claims.session import FAILED, Session, check, run_claims
    from etude.claims.settings import SETTINGS
    from etude.docs.claims import FILE

    if not (recipes or family or file):
        say(filled(_list(on), 2))
        return
    chosen = _chosen(recipes or [], on, family, file or SETTINGS, against)
    command = "etude claims" + (f" --file {file}" if file else "")
    session = Session(
        chosen, out / "trial" if trial else out, FILE if record else None, parallel, trial, command
    )
    if plan:
        check(session.claims)
        say(str(estimate(session.claims, session.out, session.workers, say)))
        return
    results = run_claims(session, (lambda _: None) if json else say)
    if json:
        say(jsons.dumps(results, indent=2))
    else:
        for name, both in results.items():
            say(filled(_screen(name, both[on])))
        say(f"\n{'a trial, not recorded: ' if trial else ''}{session.results}")
    if any(both[on]["state"] == FAILED for both in results.values()):
        raise typer.Exit(1)


def _chosen(recipes: list[str], on: str, family: str, file: Path, against: str) -> list[Claim]:
    from etude.claims.settings import beds, load, of_recipe
    from etude.methods import outside

    if on not in (known := beds(file)):
        raise UserError(f"there is no bed '{on}' in '{file}'{nearest(on, known)}")
    everything = [c for c in load(file) if c.on == on]
    named = {c.recipe: c for c in everything}
    if recipes:
        for word in recipes:
            if word not in named and not outside.is_outside(word):
                raise UserError(f"there is no claim of '{word}' on '{on}'{nearest(word, named)}")
        found = [named[word] if word in named else of_recipe(word, on, against, file) for word in recipes]
    else:
        found = everything
    if family:
        found = [c for c in found if c.topic == family]
        if not found:
            topics = sorted({c.topic for c in everything})
            raise UserError(f"there is no claim of the family '{family}' on '{on}'{nearest(family, topics)}")
    return found


def _list(on: str) -> str:
    """All claims of a bed, with what was recorded."""
    from etude.claims.settings import SETTINGS
    from etude.docs.claims import labels, result

    lines = ["recipe (family, against): reproduces / pays for itself"]
    for claim in _chosen([], on, "", SETTINGS, ""):
        found = labels(result(claim.recipe, on)) if not claim.untested else "cannot be tested here"
        against = f", {claim.base}" if claim.base else ""
        lines += [f"{claim.recipe} ({claim.topic}{against}): {found}", f"  {claim.says}"]
    return "\n".join(lines)


def _screen(name: str, found: dict[str, Any]) -> str:
    """One claim's result, as `etude recipes NAME` tells it."""
    from etude.claims import AXES
    from etude.docs.claims import sentence, visible, why

    lines = [f"\n{name}: {found['says']}"]
    if found["state"] == "run":
        lines += [f"  {question:18}{sentence(found, axis)}" for axis, question in AXES.items()]
        lines += [f"  smallest visible  {visible(found)}"]
        lines += [f"  {'ok  ' if g['passed'] else 'shut'} {g['sentence']}" for g in found["gates"]]
    elif why(found):
        lines.append(f"  {found['state']}: {why(found)}")
    return "\n".join(lines)
