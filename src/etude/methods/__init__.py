"""All recipes of the package, found by being there: every module under `methods/<topic>/` offers `RECIPE` or `RECIPES`.
`find` reads those of a user as well (`etude.methods.outside`)."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from functools import cache

from etude.errors import UserError, nearest
from etude.methods import outside
from etude.recipe import Recipe, compose


@cache
def catalogue() -> dict[str, Recipe]:
    """{name: recipe}, sorted by topic and name."""
    found: dict[str, Recipe] = {}
    for module in pkgutil.walk_packages(__path__, __name__ + "."):
        if module.ispkg or module.name.count(".") < 3:
            continue  # methods live in the folder of a topic
        loaded = importlib.import_module(module.name)
        for recipe in getattr(loaded, "RECIPES", None) or [loaded.RECIPE]:
            if recipe.name in found:
                raise TypeError(f"two recipes are called '{recipe.name}'")
            found[recipe.name] = replace(recipe, topic=module.name.split(".")[-2])
    return dict(sorted(found.items(), key=lambda item: (item[1].topic, item[0])))


def find(expression: str) -> Recipe:
    """The recipe that is named, or the composition `a+b`. A part is a name of the catalogue or of an entry point
    `etude.recipes`, a file (`./my_method.py`, or `file.py:NAME` of several), or `pkg.module:RECIPE`. UserError in one
    sentence, with the nearest name."""
    return compose([_part(part) for part in outside.parts(expression)])


def _part(part: str) -> Recipe:
    known = catalogue()
    if part in known:
        return known[part]
    registered = outside.registered()
    if part in registered:
        return outside.load_registered(registered[part])
    if outside.is_outside(part):
        return outside.read(part, known.keys() | registered.keys())
    raise UserError(f"there is no recipe '{part}'{nearest(part, known.keys() | registered.keys())}")
