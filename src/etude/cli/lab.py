"""`etude lab`: the small model on which the mechanism of a method shows within a minute."""

from __future__ import annotations

import json as jsons
from typing import Any

import typer

from etude.cli.train import Json
from etude.printable import say


def add_to(app: typer.Typer) -> None:
    app.command()(lab)


def lab(json: Json = False) -> None:
    """Make the laboratory's model if need be (a minute or two, once), and say what it can do."""
    from etude.lab.model import directory, facts
    from etude.lab.tasks import MAX_TOKENS
    from etude.report.terminal import eval_screen
    from etude.train.measure import Exam, evaluate_model, exam_tasks

    place = directory()
    name, held = exam_tasks("lab", None, 200)
    result = evaluate_model("lab", Exam(name, held, 4, 0, changes={"max_tokens": str(MAX_TOKENS)})).to_dict()
    found: dict[str, Any] = {"model": str(place), **facts(place), "accuracy": result}
    if json:
        say(jsons.dumps(found, indent=2, default=str))
        return
    say(f"{place}: {found['parameters'] / 1e6:.1f} million weights")
    say(eval_screen(result))
    say(f"\netude train grpo --model lab --tasks lab --set run.max_tokens={MAX_TOKENS} --set update.lr=1e-4")
