"""Methods that are not part of the package: in a file, in an importable module, or registered by an installed package.

./my_method.py            a file that offers one recipe          pkg.module:RECIPE    an importable one
./my_methods.py:NAME      one of several in a file               NAME                 an entry point `etude.recipes`
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from etude.errors import UserError, nearest
from etude.recipe import Recipe

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
    return {path: _hash(Path(path)) for path in files}


def read(part: str, taken: Collection[str]) -> Recipe:
    """The recipe that a path or `module:NAME` stands for. `taken`: names that it may not use. UserError in one
    sentence where there is none."""
    if found := _FILE.fullmatch(part):
        path = Path(found["path"]).expanduser().resolve()
        if not path.is_file():
            raise UserError(f"there is no file '{found['path']}' to read a recipe from")
        return _chosen(_load(path, _hash(path)), found["path"], found["name"], taken)
    module, colon, name = part.partition(":")
    if not colon or "/" in module:
        raise UserError(f"there is no recipe '{part}'; a file of a method ends in .py")
    return _chosen(_import(module), module, name, taken)


def registered() -> dict[str, EntryPoint]:
    """{name: entry point} of the recipes that installed packages register. None of them is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load_registered(point: EntryPoint) -> Recipe:
    """UserError where the entry point does not lead to a recipe of its name."""
    module, _, name = point.value.partition(":")
    where = f"the entry point '{point.name}' ({point.value})"
    recipe = getattr(_import(module), name or "RECIPE", None)
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


@cache
def _load(path: Path, content: str) -> ModuleType:
    """The module in the file, made once per content. Its name says where it lies, so that a resumed run finds its
    stages under the names that they had."""
    name = f"{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look themselves up there
    _reach(path.parent)
    try:
        # Compiled from the text: bytecode in a cache is told apart by size and whole seconds only.
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"'{path}' cannot be imported: {_cause(error, str(path))}") from error
    return module


def _import(name: str) -> ModuleType:
    _reach(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(
                f"there is no module '{name}'; it must be installed, or lie in the working directory or on PYTHONPATH"
            ) from None
        raise UserError(f"the module '{name}' cannot be imported: {_cause(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"the module '{name}' cannot be imported: {_cause(error)}") from error


def _reach(folder: Path) -> None:
    """Modules that lie in `folder` can be imported, after those of the library and of installed packages."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _cause(error: BaseException, path: str = "") -> str:
    """What went wrong, and in which line: the last one in the file, or of all."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}, SyntaxError: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == path] if path else frames[-1:]
    if not own:
        return said
    return f"line {own[-1].lineno}, {said}" if path else f"{own[-1].filename}, line {own[-1].lineno}, {said}"


def _hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
