"""All runs of a folder, a line each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.report.run import RunDirectory, is_run
from etude.report.server import Library
from etude.report.terminal import amount, clean, share

HEADER = ("run", "recipe", "model", "tasks", "steps", "held-out accuracy", "state", "when")
WIDEST = 32  # characters of a task set or a model in the table


def runs(root: Path) -> list[dict[str, Any]]:
    """The runs below `root`, or `root` itself, the one that changed last at the end."""
    if not root.is_dir():
        raise UserError(f"'{root}' is not a directory; name a folder that holds runs")
    found = [facts(path) for path in Library(root).names().values() if is_run(path)]
    return sorted(found, key=lambda row: str(row["when"]))


def facts(path: Path) -> dict[str, Any]:
    """What one line says of a run; `broken` where its files cannot be read."""
    run = RunDirectory(path)
    changed = max(p.stat().st_mtime for p in [path / "config.json", *path.glob("*.jsonl")])
    row: dict[str, Any] = {
        "path": str(path),
        "when": datetime.fromtimestamp(changed).isoformat(" ", "seconds"),
    }
    try:
        plan, evals, steps = run.config["plan"], run.evals(), run.steps()
        state, why = run.state
        return {
            **row,
            **{name: plan[name] for name in ("recipe", "model", "tasks", "budget", "seed")},
            "recipe": run.config["recipe"],
            "steps": steps[-1] if steps else 0,
            "before": _accuracy(next((e for e in evals if e.get("rule") == "before"), None)),
            "after": _accuracy(next((e for e in reversed(evals) if e.get("rule") == "last"), None)),
            "state": state,
            "why": why,
        }
    except (UserError, KeyError, TypeError) as error:
        return {**row, "state": "broken", "why": str(error)}


def _accuracy(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    names = ("mean", "low", "high", "problems", "samples")
    return {name: result[name] for name in names} if result else None


def screen(rows: Sequence[Mapping[str, Any]], root: Path, width: int) -> str:
    """A table, or a paragraph for each run where it is wider than the screen."""
    if not rows:
        return f"no runs in '{root}'"
    cells = [HEADER, *(_cells(row, root) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADER))]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    else:
        lines = [line for row in cells[1:] for line in _paragraph(row, width)]
    why = [f"{_name(row, root)}: {row['why']}" for row in rows if row["state"] in ("refused", "broken")]
    return "\n".join(clean(line) for line in [*lines, *(["", *why] if why else [])])


def _name(row: Mapping[str, Any], root: Path) -> str:
    path = Path(row["path"])
    return str(root / path.relative_to(root.resolve())) if path.is_relative_to(root.resolve()) else str(path)


def _cells(row: Mapping[str, Any], root: Path) -> tuple[str, ...]:
    name, when = _name(row, root), str(row["when"])[:16]
    if row["state"] == "broken":
        return (name, "-", "-", "-", "-", "-", "broken", when)
    model = str(row["model"])
    shown = model if model.count("/") < 2 else Path(model).name
    return (
        name,
        str(row["recipe"]),
        _short(shown),
        _short(str(row["tasks"])),
        _steps(row),
        accuracy(row),
        str(row["state"]),
        when,
    )


def _steps(row: Mapping[str, Any]) -> str:
    budget = row["budget"]
    of = f"/{budget['amount']:g}" if budget["unit"] == "steps" else f" ({_budget(budget)})"
    return f"{row['steps']}{of}"


def _budget(budget: Mapping[str, Any]) -> str:
    return amount(float(budget["amount"]), str(budget["unit"]))


def accuracy(row: Mapping[str, Any]) -> str:
    """`6.9% -> 66.1% [57.1, 74.3]`, as far as it was measured."""
    before, after = row["before"], row["after"]
    if before and after:
        return f"{100 * before['mean']:.1f}% -> {share(after)}"
    return share(before) if before else f"-> {share(after)}" if after else "-"


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _paragraph(cells: Sequence[str], width: int) -> list[str]:
    name, recipe, model, tasks, steps, found, state, when = cells
    said = [f"{recipe}, {model}, {tasks}", f"{steps} steps, {found}", f"{state}, {when}"]
    wrapped = [textwrap.wrap(line, max(20, width - 2), break_on_hyphens=False) for line in said]
    return [name, *(f"  {part}" for lines in wrapped for part in lines)]
