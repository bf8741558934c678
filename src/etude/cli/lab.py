"""`etude lab`: what the laboratory's models can do, by task and by protocol."""

from __future__ import annotations

import json as jsons
from typing import Annotated, Any

import typer

from etude.cli.train import Json
from etude.printable import say

Model = Annotated[
    str, typer.Argument(help="lab, lab-smollm2 (made at first use), a model directory, or a run's directory")
]
On = Annotated[str, typer.Option("--tasks", "-t", help="what the protocols are measured on")]
Number = Annotated[int, typer.Option(help="problems, of each kind and level and of each protocol", min=2)]


def add_to(app: typer.Typer) -> None:
    app.command()(lab)


def lab(
    model: Model = "lab", tasks: On = "lab:level=1,feedback=hint", problems: Number = 200, json: Json = False
) -> None:
    """Say what a model can do in the laboratory: right answers by kind and level, and what it makes of each protocol."""
    from etude.lab import abilities
    from etude.train.measure import load_policy

    policy = load_policy(model)
    weights = sum(p.numel() for _, p in policy.parameters())
    levels = abilities.by_level(policy, problems)
    protocols = abilities.measure(policy, tasks, problems)
    if json:
        facts = {"model": model, "parameters": weights, "problems": problems, "protocols on": tasks}
        rows = {kind: [_share(*each) for each in row] for kind, row in levels.items()}
        named = {name: _share(*each) for name, each in protocols.items()}
        say(jsons.dumps({**facts, "levels": rows, "protocols": named}, indent=2))
        return
    say(f"{model}: {weights / 1e6:.1f} million weights\n\nright answers in %, {problems} problems, by level")
    for kind, row in levels.items():
        say(f"  {kind:9}" + "".join(f"{100 * right / n:6.1f}" for right, n in row))
    say(f"\nprotocols on {tasks}: done right in %, 95 % interval, cases")
    for name, (right, n) in protocols.items():
        found = _share(right, n)
        share = f"{found['share']:6.1f}  [{found['low']:.1f}, {found['high']:.1f}]" if found else "     -"
        say(f"  {name:17}{share}  {n}")


def _share(right: int, number: int) -> dict[str, Any] | None:
    from etude.lab.abilities import interval

    found = interval(right, number)
    if found is None:
        return None
    in_percent = {"share": found.mean, "low": found.low, "high": found.high}
    return {name: round(100 * value, 1) for name, value in in_percent.items()} | {
        "right": right,
        "of": number,
    }
