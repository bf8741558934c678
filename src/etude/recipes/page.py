"""What is known of every recipe: the table, and one recipe's own page."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from etude.recipe import STAGES, Recipe
from etude.recipes import catalogue, find, resolved_stages

NOT_RUN = {"state": "not run", "effect": None, "interval": None}


@cache
def _claims() -> dict[str, Any]:
    """Recorded outcomes of claims, by recipe (`claims.json` beside this file, written by `bench/claims.py`)."""
    file = resources.files("etude.recipes") / "claims.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def facts(name: str | None = None) -> list[dict[str, Any]]:
    """One object per recipe, as `etude recipes --json` prints it. UserError for an unknown name."""
    chosen = [find(name)] if name else list(catalogue().values())
    return [_facts(recipe) for recipe in chosen]


def _facts(recipe: Recipe) -> dict[str, Any]:
    paper = recipe.paper
    return {
        "name": recipe.name,
        "n": recipe.n,
        "family": recipe.family,
        "year": paper.year if paper else None,
        "paper": paper.title if paper else None,
        "url": paper.url if paper else None,
        "replaces": list(recipe.replaces),
        "confidence": recipe.confidence,
        "needs": list(recipe.all_needs),
        "idea": recipe.idea,
        "equation": recipe.equation,
        "departures": list(recipe.departures),
        "tests": len(recipe.examples),
        "claimed": recipe.claim,
        "claim": _claims().get(recipe.name, NOT_RUN),
        "settings": _settings(recipe),
        "defaults": recipe.all_defaults,
    }


def _settings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    found = {}
    for name, part in resolved_stages(recipe).items():
        for parameter, value in part:
            known = parameter.setting
            found[f"{name}.{parameter.name}"] = {
                "value": value,
                "meaning": known.meaning,
                "unit": known.unit,
                "range": known.range,
            }
    return found


def table(found: list[dict[str, Any]]) -> str:
    rows = [("recipe", "family", "n", "year", "replaces", "basis", "tests", "claim")]
    for one in found:
        number = one["n"] if not isinstance(one["n"], list | tuple) else ",".join(map(str, one["n"]))
        rows.append(
            (
                one["name"],
                one["family"],
                str(number or "-"),
                str(one["year"] or "-"),
                " ".join(one["replaces"]),
                one["confidence"],
                str(one["tests"]),
                _claim(one["claim"]),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def one(recipe: dict[str, Any]) -> str:
    lines = [recipe["name"], "", recipe["idea"], ""]
    if recipe["equation"]:
        lines += ["  " + recipe["equation"], ""]
    if recipe["paper"]:
        lines += [f"Paper: {recipe['paper']} ({recipe['year']}) {recipe['url'] or ''}".rstrip()]
    lines += [f"Replaces: {', '.join(f'{s} ({STAGES[s]})' for s in recipe['replaces'])}"]
    if recipe["needs"]:
        lines += [f"Needs: {', '.join(recipe['needs'])}"]
    lines += [f"Departs from the paper: {d}" for d in recipe["departures"]]
    lines += [
        f"Claim: {recipe['claimed']} ({_claim(recipe['claim'])})" if recipe["claimed"] else "",
        "",
        "Settings (--set NAME=VALUE):",
    ]
    own = set(recipe["replaces"]) | {"update"}
    for name, s in recipe["settings"].items():
        if name.split(".")[0] in own:
            detail = ", ".join(x for x in (s["unit"], s["range"]) if x)
            lines.append(f"  {name} = {s['value']}  {s['meaning']}" + (f" ({detail})" if detail else ""))
    return "\n".join(lines)


def _claim(claim: dict[str, Any]) -> str:
    if claim.get("effect") is None:
        return str(claim["state"])
    low, high = claim["interval"]
    return f"{claim['state']}: {claim['effect']:+.1f} [{low:+.1f}, {high:+.1f}] points"
