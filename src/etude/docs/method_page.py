"""What is known of every recipe: the table, and one recipe's own page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.claims import AXES
from etude.docs.claims import labels, read, result, sentence, visible, why

if TYPE_CHECKING:  # every method, and torch: what is remembered (`docs.remembered`) is shown without them
    from etude.recipe import Recipe


def facts(name: str | None = None) -> list[dict[str, Any]]:
    """One object per recipe, as `etude recipes --json` prints it, those of installed packages last. UserError for an
    unknown name."""
    from etude.methods import catalogue, find, outside

    names = [name] if name else [*catalogue(), *sorted(outside.registered().keys() - catalogue().keys())]
    return [_facts(find(one)) for one in names]


def _facts(recipe: Recipe) -> dict[str, Any]:
    from etude.recipe import STAGES

    paper = recipe.paper
    return {
        "name": recipe.name,
        "topic": recipe.topic,
        "year": paper.year if paper else None,
        "paper": paper.title if paper else None,
        "url": paper.url if paper else None,
        "published_lr": recipe.published_lr,
        "replaces": list(recipe.replaces),
        "stages": {stage: STAGES[stage] for stage in recipe.replaces},
        "confidence": recipe.confidence,
        "needs": list(recipe.all_needs),
        "idea": recipe.idea,
        "equation": recipe.equation,
        "departures": list(recipe.departures),
        "tests": len(recipe.examples),
        "claimed": recipe.claim,
        "manipulation": [m.says for m in recipe.manipulation],
        "unchecked": recipe.unchecked,
        "claim": result(recipe.name),
        "claims": read().get(recipe.name, {}),
        "settings": _settings(recipe),
        "defaults": recipe.all_defaults,
    }


def _settings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The settings of the recipe's stages, but for those that nothing of it reads."""
    from etude.assembly import resolved_stages
    from etude.train.notes import trains_heads

    stages, found = resolved_stages(recipe), {}
    heads = trains_heads(recipe, stages["objective"].build("objective"))
    for name, part in stages.items():
        for parameter, value in part:
            if (name, parameter.name) == ("update", "head_lr") and not heads:
                continue
            known = parameter.setting
            found[f"{name}.{parameter.name}"] = {
                "value": ";".join(map(str, value)) if isinstance(value, tuple) else value,  # as it is given
                "meaning": known.meaning,
                "unit": known.unit,
                "range": known.range,
            }
    return found


HEADER = ("recipe", "topic", "year", "replaces", "confidence", "tests", "claim")


def rows(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table's cells, one tuple per recipe, in the order of `HEADER`."""
    cells = []
    for one in found:
        claim = labels(one["claim"])
        known = (one["year"] or "-", " ".join(one["replaces"]) or "-", one["confidence"])
        cells.append((one["name"], one["topic"], *map(str, known), str(one["tests"]), claim))
    return cells


LEAST = (
    "tests",
    "confidence",
    "year",
    "topic",
    "replaces",
)  # columns that a narrow screen goes without, in order


def table(found: list[dict[str, Any]], width: int = 1000) -> str:
    """At most `width` columns wide; the claim is cut where nothing else helps."""
    lines = [HEADER, *rows(found)]
    shown = list(range(len(HEADER)))
    widths = [max(len(row[i]) for row in lines) for i in shown]
    for name in LEAST:
        if sum(widths[i] + 2 for i in shown) - 2 <= width:
            break
        shown.remove(HEADER.index(name))
    return "\n".join("  ".join(row[i].ljust(widths[i]) for i in shown)[:width].rstrip() for row in lines)


def one(recipe: dict[str, Any]) -> str:
    lines = [recipe["name"], "", recipe["idea"], ""]
    if recipe["equation"]:
        lines += ["  " + recipe["equation"], ""]
    lines += [f"Topic: {recipe['topic']}"]
    if recipe["paper"]:
        lines += [f"Paper: {recipe['paper']} ({recipe['year']}) {recipe['url'] or ''}".rstrip()]
    if recipe["published_lr"]:
        here = recipe["settings"]["update.lr"]["value"]
        lines += [
            f"Learning rate: {recipe['published_lr']:g} in its paper's settings, {here:g} here (update.lr)"
        ]
    lines += [f"Replaces: {', '.join(f'{name} ({said})' for name, said in recipe['stages'].items())}"]
    if recipe["needs"]:
        lines += [f"Needs: {', '.join(recipe['needs'])}"]
    lines += [f"Departs from the paper: {d}" for d in recipe["departures"]]
    lines += _claimed(recipe)
    lines += ["", "Settings (--set NAME=VALUE):"]
    own = set(recipe["replaces"]) | {"update"}
    for name, s in recipe["settings"].items():
        if name.split(".")[0] in own:
            detail = ", ".join(x for x in (s["unit"], s["range"]) if x)
            lines.append(f"  {name} = {s['value']}  {s['meaning']}" + (f" ({detail})" if detail else ""))
    return "\n".join(lines)


def _claimed(recipe: dict[str, Any]) -> list[str]:
    """The claim, what must be seen before it is tested, and each result with the command that made it."""
    lines = [f"Claim: {recipe['claimed']}"] if recipe["claimed"] else []
    lines += [f"Not tested unless: {says}" for says in recipe["manipulation"]]
    if recipe["unchecked"]:
        lines += [f"Tested without a check of its own: {recipe['unchecked']}"]
    for on, found in recipe["claims"].items():
        lines += [f"Tested on {on}: {found['says']}"]
        if found["state"] == "run":
            lines += [f"  {question} {sentence(found, axis)}" for axis, question in AXES.items()]
            lines += [f"  smallest visible effect: {visible(found)}"]
            lines += [f"  {found['arm']} against {found['base']}, {found['seeds']} seeds"]
        lines += [f"  no test: {why(found)}"] if why(found) else []
        lines += [f"  {found['command']}"] if "command" in found else []
    return lines if recipe["claims"] else [*lines, "Not yet run on this bed."]
