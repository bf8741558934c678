"""Recorded outcomes of claims, as `bench/claims.py` wrote them: {recipe: {"lab" | "smollm2": result}}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("claims.json")
NOT_RUN: dict[str, Any] = {"state": "not run", "effect": None, "interval": None}
UNITS = {
    "entropy": "nats/token",
    "length": "tokens",
    "grad_norm_cv": "% of mean",
    "wasted": "% of groups",
    "repeated": "% of 4-grams",
}


def read(file: Path = FILE) -> dict[str, dict[str, dict[str, Any]]]:
    """All results; none where the file is missing."""
    found: dict[str, dict[str, dict[str, Any]]] = (
        json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    )
    return found


def result(recipe: str, on: str = "lab", file: Path = FILE) -> dict[str, Any]:
    """The outcome of a recipe's claim; "not run" where there is none."""
    return read(file).get(recipe, {}).get(on, NOT_RUN)


def sentence(found: dict[str, Any]) -> str:
    """`held: +4.2 [+1.0, +7.4] points`, or the bare state where nothing was measured."""
    if found.get("effect") is None:
        return str(found["state"])
    low, high = found["interval"]
    unit = UNITS.get(found["metric"], "points")
    digits = 3 if found["metric"] == "entropy" else 1
    said = f"{found['state']}: {found['effect']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}] {unit}"
    guard = found.get("guard")
    if not guard:
        return said
    return f"{said}; accuracy {guard['effect']:+.1f} [{guard['low']:+.1f}, {guard['high']:+.1f}]"
