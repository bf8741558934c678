"""What should notice a mutant: rows and laws of the recipes that reach the changed definition, and the tests that name it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE, TESTS = ROOT / "src" / "etude", ROOT / "tests"
WHOLE_RUNS = (
    "test_laws",
    "test_resume",
    "test_learn",
    "test_mutants",
    "test_refusals",
    "test_readme",
    "test_claims",
)
SLOW_AT_MOST = 6  # recipes whose reductions and laws are run, per mutant


@cache
def reached() -> dict[tuple[str, str], set[str]]:
    from etude.testing import vocabulary

    return vocabulary.users(SOURCE)


def recipes_of(module: str, where: str) -> list[str]:
    """The recipes that reach the changed definition: those of the file, or of the methods that use it; and those
    built on one of them."""
    from etude.methods import catalogue

    homes = _homes()
    if ".methods." in module:
        users = {module.removeprefix("etude.methods.")}
    else:
        definition = where.split(".")[0]
        users = reached().get((module, definition), set()) or set(homes.values())
    own = [name for name, home in homes.items() if home in users]
    built = [n for n, r in catalogue().items() if n not in own and ({b.name for b in _bases(r)} & set(own))]
    return own + built


@cache
def _homes() -> dict[str, str]:
    """{recipe: "topic.file"}."""
    from etude.methods import catalogue

    found = {}
    for path in sorted((SOURCE / "methods").glob("*/*.py")):
        module = sys.modules.get(f"etude.methods.{path.parent.name}.{path.stem}")
        for recipe in getattr(module, "RECIPES", None) or [getattr(module, "RECIPE", None)]:
            if recipe is not None and recipe.name in catalogue():
                found[recipe.name] = f"{path.parent.name}.{path.stem}"
    return found


def _bases(recipe: Any) -> Iterator[Any]:
    for base in (recipe.base, recipe.default_base):
        if base is not None:
            yield base
            yield from _bases(base)


def rows_of(name: str, slow: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """A recipe's rows; `slow`: its reductions and the laws, which take tenths of a second in place of milliseconds."""
    from etude.methods import catalogue
    from etude.recipe import Reduction
    from etude.testing.laws import LAWS
    from etude.testing.rows import check

    for row in catalogue()[name].examples:
        if isinstance(row, Reduction) == slow:
            yield f"{name}: {row.says}", lambda row=row: check(catalogue()[name], row)
    for law in LAWS if slow else ():
        yield f"{name}: {law.__name__}", lambda law=law: law(catalogue()[name])


@cache
def tests_of(module: str, names: tuple[str, ...]) -> list[str]:
    """Ids of the tests whose text names something of the module, or one of its recipes."""
    found = []
    own = set(names) if ".methods." in module else set()
    for path in sorted(TESTS.glob("test_*.py")):
        if path.stem in WHOLE_RUNS:
            continue
        tree = ast.parse(path.read_text())
        imported = {
            a.asname or a.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and (node.module == module or f"{node.module}.{node.names[0].name}" == module)
            for a in node.names
        }
        named = {n for n in _defined(tree) if _mentions(_defined(tree)[n], own, imported)}
        found += [
            f"{path}::{node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")
            and _mentions(node, own, imported | named)
        ]
    return found


def _defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """Helpers and constants of a test file."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("test_"):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
    return found


def _mentions(node: ast.AST, recipes: set[str], names: set[str]) -> bool:
    return any(
        (isinstance(n, ast.Name) and n.id in names) or (isinstance(n, ast.Constant) and n.value in recipes)
        for n in ast.walk(node)
        if not (isinstance(n, ast.Constant) and not isinstance(n.value, str))
    )
