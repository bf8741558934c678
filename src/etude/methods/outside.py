"""Methods that are not part of the package: in a file, in an importable module, or registered by an installed package.

./my_method.py            a file that offers one recipe          pkg.module:RECIPE    an importable one
./my_methods.py:NAME      one of several in a file               NAME                 an entry point `etude.recipes`
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from etude.errors import UserError, nearest
from etude.modules import content, imported, load
from etude.recipe import Recipe
from etude.registry import declared

GROUP = "etude.recipes"
TOPIC = "own"

_PART = re.compile(
    r"[^+]*?/.*?\.py(?::\w+)?(?=\s*(?:\+|$))|[^+]+"
)  # the folders of a path may have a + in their names
_FILE = re.compile(r"(?P<path>.*\.py)(?::(?P<name>\w+))?")


def parts(expression: str) -> list[str]:
    """The names, paths and modules of `a+b+./c.py`."""
    return [part.strip() for part in _PART.findall(expression)] or [expression]


def is_outside(part: str) -> bool:
    return ":" in part or "/" in part or part.endswith(".py")


def absolute(expression: str) -> str:
    """The expression with every path made absolute, as a run stores it."""
    made = []
    for part in parts(expression):
        found = _FILE.fullmatch(part)
        path = Path(found["path"]).expanduser().resolve() if found else None
        made.append(part if found is None else f"{path}:{found['name']}" if found["name"] else str(path))
    return "+".join(made)


def hashes(expression: str) -> dict[str, str]:
    """{absolute path: hash of its bytes} of the files among the parts of `expression`."""
    files = [found["path"] for part in parts(absolute(expression)) if (found := _FILE.fullmatch(part))]
    return {path: content(Path(path)) for path in files}


def read(part: str, taken: Collection[str]) -> Recipe:
    """The recipe that a path or `module:NAME` stands for. `taken`: names that it may not use. UserError in one
    sentence where there is none."""
    if found := _FILE.fullmatch(part):
        path = Path(found["path"]).expanduser().resolve()
        if not path.is_file():
            raise UserError(f"there is no file '{found['path']}' to read a recipe from")
        return _chosen(load(path), found["path"], found["name"], taken)
    module, colon, name = part.partition(":")
    if not colon or "/" in module:
        raise UserError(f"there is no recipe '{part}'; a file of a method ends in .py")
    return _chosen(imported(module), module, name, taken)


def registered() -> dict[str, EntryPoint]:
    """{name: entry point} of the recipes that installed packages register. None of them is imported."""
    return declared(GROUP, tuple(sys.path))


def load_registered(point: EntryPoint) -> Recipe:
    """UserError where the entry point does not lead to a recipe of its name."""
    module, _, name = point.value.partition(":")
    where = f"the entry point '{point.name}' ({point.value})"
    recipe = getattr(imported(module), name or "RECIPE", None)
    if not isinstance(recipe, Recipe) or recipe.name != point.name:
        raise UserError(f"{where} does not lead to a recipe called '{point.name}'")
    return replace(recipe, topic=TOPIC)


def _chosen(module: ModuleType, where: str, name: str | None, taken: Collection[str]) -> Recipe:
    """The recipe called `name` (or held by the variable `name`), or the only one."""
    offered = _offered(module, where)
    if name:
        known = {recipe.name: recipe for recipe in offered}
        known |= {n: value for n, value in vars(module).items() if isinstance(value, Recipe)}
        if name not in known:
            raise UserError(f"'{where}' has no recipe '{name}'{nearest(name, known)}")
        recipe = known[name]
    elif len(offered) == 1:
        recipe = offered[0]
    elif offered:
        names = ", ".join(recipe.name for recipe in offered)
        raise UserError(
            f"'{where}' has several recipes ({names}); choose one, as in {where}:{offered[0].name}"
        )
    else:
        raise UserError(f"'{where}' has no RECIPE; a method's file ends with RECIPE = Recipe(...)")
    if recipe.name in taken:
        raise UserError(f"the recipe of '{where}' is called '{recipe.name}', which exists already; rename it")
    return replace(recipe, topic=TOPIC)


def _offered(module: ModuleType, where: str) -> list[Recipe]:
    found: Any = getattr(module, "RECIPES", None)
    found = (
        list(found)
        if isinstance(found, list | tuple)
        else [r]
        if (r := getattr(module, "RECIPE", None))
        else []
    )
    for recipe in found:
        if not isinstance(recipe, Recipe):
            raise UserError(f"RECIPE in '{where}' is of type {type(recipe).__name__}; it must be a Recipe")
    return found
