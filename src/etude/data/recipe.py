"""Recipes of data: how items are made, chosen or mixed. One file each in `data/recipes/`, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from etude.errors import UserError, nearest
from etude.recipe import Paper
from etude.settings import Stage

MAKE, CHOOSE, MIX = VERBS = ("make", "choose", "mix")


@dataclass(frozen=True)
class DataRecipe:
    """`build`: a factory with settings of a function. Of "make": (workshop) -> items. Of "choose": (workshop, items) -> items. Of
    "mix": (list of item lists) -> stages, {name: items}, in the order in which they are trained on."""

    name: str
    verb: str
    build: Stage
    idea: str
    paper: Paper | None = None
    departures: tuple[str, ...] = ()
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # {stage: settings of its run}
    needs: tuple[str, ...] = ()  # "policy": a local model; "teacher"; "answers"; "tools", and no tasks

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise TypeError(f"data recipe {self.name}: '{self.verb}' is none of {', '.join(VERBS)}")


@cache
def catalogue() -> dict[str, DataRecipe]:
    """{name: recipe}, sorted by verb and name."""
    from etude.data import recipes

    found = {}
    for module in pkgutil.iter_modules(recipes.__path__):
        loaded = importlib.import_module(f"{recipes.__name__}.{module.name}")
        for recipe in getattr(loaded, "RECIPES", None) or [loaded.RECIPE]:
            found[recipe.name] = recipe
    return dict(sorted(found.items(), key=lambda item: (VERBS.index(item[1].verb), item[0])))


def find(name: str, verb: str) -> DataRecipe:
    """The recipe of that name. UserError where there is none, or where it does something else."""
    mine = {n: r for n, r in catalogue().items() if r.verb == verb}
    if name in catalogue() and name not in mine:
        raise UserError(f"{name} is a recipe of `etude data {catalogue()[name].verb}`")
    if name not in mine:
        raise UserError(f"there is no recipe '{name}' of `etude data {verb}`{nearest(name, mine)}")
    return mine[name]
