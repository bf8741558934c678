"""What two runs have different: the plan, its settings, the environment, and what came of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etude.compare.paired import checkpoints
from etude.errors import Refused
from etude.evaluate.result import EvalResult
from etude.report.run import RunDirectory
from etude.report.terminal import clean, share

MISSING = "-"
Rows = dict[str, tuple[Any, Any]]


def difference(one: Path, other: Path) -> dict[str, Any]:
    """{section: {name: (value here, value there)}} of what differs, and a verdict on the accuracies where both were
    measured on the same problems."""
    a, b = RunDirectory.open(one), RunDirectory.open(other)
    found: dict[str, Any] = {
        "plan": _apart(_plan(a.config), _plan(b.config)),
        "settings": _apart(_settings(a.config), _settings(b.config)),
        "environment": _apart(dict(_flat(a.card)), dict(_flat(b.card))),
        "results": _apart(_results(a), _results(b)),
    }
    return {**found, "verdict": _verdict(a, b)}


def _plan(config: Mapping[str, Any]) -> dict[str, Any]:
    plan = config["plan"]
    own = {name: plan[name] for name in ("model", "tasks", "seed")}
    budget = f"{plan['budget']['amount']:g} {plan['budget']['unit']}"
    return {"recipe": config["recipe"], **own, "budget": budget, **dict(_flat(config.get("methods") or {}))}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {f"run.{k}": v for k, v in config["settings"].items()} | dict(_flat(config["stages"]))


def _results(run: RunDirectory) -> dict[str, Any]:
    evals, metrics = run.evals(), run.metrics()
    last = metrics[-1] if metrics else {}
    shown = {
        rule: next((e for e in reversed(evals) if e.get("rule") == rule), None) for rule in ("before", "last")
    }
    return {
        "state": run.state[0],
        "steps": last.get("step", 0),
        "minutes": round(float(last.get("seconds") or 0) / 60, 1),
        "model FLOPs": f"{float(last.get('flops') or 0):.3g}",
        **{f"accuracy {rule}": share(e) for rule, e in shown.items() if e},
        "findings": ", ".join(sorted({str(f.get("name")) for f in run.findings()})) or "none",
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> Rows:
    names = dict.fromkeys([*a, *b])
    pairs = {name: (a.get(name, MISSING), b.get(name, MISSING)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _verdict(a: RunDirectory, b: RunDirectory) -> str:
    last = [next((e for e in reversed(run.evals()) if e.get("rule") == "last"), None) for run in (a, b)]
    if last[0] is None or last[1] is None:
        return "not both were examined after training"
    first, second = (EvalResult.from_dict(e) for e in last if e is not None)
    try:
        found = checkpoints(second, first)
    except Refused as refused:
        return str(refused)
    return (
        f"second - first: {found.effect:+.1f} points, 95 % interval [{found.low:+.1f}, {found.high:+.1f}] over problems. "
        "Two runs say nothing of their methods: for that, `etude compare` with several seeds."
    )


def screen(found: Mapping[str, Any], names: tuple[str, str], width: int) -> str:
    """Sections with a line for each difference, or two lines below its name where that is too wide."""
    lines = [f"{names[0]}  |  {names[1]}"]
    for section in ("plan", "settings", "environment", "results"):
        rows: Rows = found[section]
        lines += ["", section if rows else f"{section}: no difference"]
        wide = max((len(name) for name in rows), default=0)
        for name, (first, second) in rows.items():
            line = f"  {name:<{wide}}  {first}  |  {second}"
            lines += [line] if len(line) <= width else [f"  {name}", f"    {first}", f"    {second}"]
    return clean("\n".join([*lines, "", *textwrap.wrap(found["verdict"], min(width, 100))]))
