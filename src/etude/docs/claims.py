"""Recorded outcomes of claims, as `etude claims --record` wrote them: {recipe: {bed: result}}."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.claims import AXES
from etude.files import read_json

FILE = Path(__file__).with_name("claims.json")
NOT_RUN: dict[str, Any] = {"state": "not run"}
SAID = {"not run": "not yet run on this bed", "untested": "no test", "failed": "failed"}
UNITS = {
    "entropy": "nats/token",
    "length": "tokens",
    "grad_norm_cv": "% of mean",
    "wasted": "% of groups",
    "repeated": "% of 4-grams",
    "predicted": "% of tokens",
}

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


def read(file: Path = FILE) -> dict[str, dict[str, dict[str, Any]]]:
    """All results; none where the file is missing."""
    found: dict[str, dict[str, dict[str, Any]]] = read_json(file) if file.exists() else {}
    return found


def result(recipe: str, on: str = "lab", file: Path = FILE) -> dict[str, Any]:
    """The outcome of a recipe's claim; "not run" where there is none."""
    return read(file).get(recipe, {}).get(on, NOT_RUN)


def labels(found: Mapping[str, Any]) -> str:
    """`held / not held`: at equal updates, and at equal FLOPs; one word where both are the same for want of a test."""
    if found["state"] != "run":
        return SAID[found["state"]]
    both = [str(found[axis]["label"]) for axis in AXES]
    return both[0] if both[0] == both[1] == "no test" else " / ".join(both)


def sentence(found: Mapping[str, Any], axis: str) -> str:
    """`held +4.2 [+1.0, +7.4] points`, or the bare label where nothing was told."""
    if found["state"] != "run":
        return SAID[found["state"]]
    one = found[axis]
    if "effect" not in one:
        return str(one["label"])
    digits = 3 if found["metric"] == "entropy" else 1
    said = f"{one['label']} {_interval(one, digits)} {unit(found)}"
    guard = one.get("guard")
    return f"{said}; its guard {_interval(guard, 1)}" if guard else said


def unit(found: Mapping[str, Any]) -> str:
    return UNITS.get(found["metric"], "points")


def visible(found: Mapping[str, Any]) -> str:
    """The smallest effect that could have been seen, at equal updates and at equal FLOPs."""
    digits = 3 if found["metric"] == "entropy" else 1
    return " / ".join(f"{found[a]['visible']:.{digits}f}" if "visible" in found[a] else "-" for a in AXES)


def why(found: Mapping[str, Any]) -> str:
    """Why there is no test, or what failed; "" where there is a verdict on both axes."""
    if found["state"] != "run":
        return str(found.get("why", ""))
    reasons = dict.fromkeys(str(found[a]["why"]) for a in AXES if "why" in found[a])
    return "; ".join(reasons)


def _interval(one: Mapping[str, float], digits: int) -> str:
    return f"{one['effect']:+.{digits}f} [{one['low']:+.{digits}f}, {one['high']:+.{digits}f}]"
