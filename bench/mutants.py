"""Would the tests notice a wrong sign? Changes one place of the mathematics at a time and runs what should notice.

    python bench/mutants.py                        # all mutants; goes on where it stopped
    python bench/mutants.py --sample 300 --seed 1  # a random sample
    python bench/mutants.py credit/group.py        # of these files; with --again, also those that were done before

Mutants: sign flips, + <-> -, dropped terms of sums, swapped bounds (min <-> max, < <-> >, low <-> high), integers off by
one, swapped arguments. Left alone: settings' ranges and defaults, annotations, error messages, the test rows.

A mutant is run in a fork of a process that has imported everything: first the rows of the recipes that reach the changed
definition, then reductions and laws of some of them, then the tests that name it. The first failure kills it, and so does the time
limit. Results: bench/results/mutants.json. Survivors that are no defect of the tests: bench/mutants.toml, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, ClassVar

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parent.parent
SOURCE, TESTS = ROOT / "src" / "etude", ROOT / "tests"
RESULTS, REASONS = ROOT / "bench" / "results" / "mutants.json", ROOT / "bench" / "mutants.toml"
sys.path[:0] = [str(SOURCE.parent), str(TESTS)]
SLOW_AT_MOST = 6  # recipes whose reductions and laws are run, per mutant
SECONDS = 60  # per mutant, for either part
TEST_SECONDS = 4  # tests that take longer are left out

# ---- what is changed ---------------------------------------------------------------------------------------

OPPOSITE = {"min": "max", "minimum": "maximum", "amin": "amax", "argmin": "argmax", "low": "high"}
OPPOSITE |= {"clip_low": "clip_high"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}
SIDES = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
SILENT_CALLS = {
    "Setting",
    "Paper",
    "UserError",
    "Refused",
    "TypeError",
    "ValueError",
    "AuxiliaryModel",
    "field",
}
ORDERLESS = {
    "isinstance",
    "zip",
    "getattr",
    "hasattr",
    "replace",
    "range",
    "stage",
    "map",
    "min",
    "max",
    "Signal",
    "Term",
}


@dataclass
class Mutant:
    """One change: `parent.field` (or its entry `index`) becomes `new`."""

    where: str  # "function" or "Class.method"; "" at the top of the module
    line: int
    text: str  # "before -> after"
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST | str

    def apply(self) -> None:
        if self.index is None:
            setattr(self.parent, self.field, self.new)
        else:
            getattr(self.parent, self.field)[self.index] = self.new

    def __str__(self) -> str:
        return f"{self.where or 'module'}: {self.text}"


def mutants(tree: ast.Module) -> list[Mutant]:
    return list({(m.line, str(m)): m for m in _walk(tree, "")}.values())


def _walk(node: ast.AST, where: str, inside: bool = False) -> Iterator[Mutant]:
    """`inside` a function, whose name stands in `where`."""
    for name, value in ast.iter_fields(node):
        if _silent(node, name):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr):
                continue
            for new in _changes(child):
                text = f"{ast.unparse(child)} -> {ast.unparse(new)}"
                yield Mutant(where, child.lineno, text, node, name, index, new)  # type: ignore[attr-defined]
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if not inside and (function or isinstance(child, ast.ClassDef)):
                yield from _walk(child, f"{where}.{child.name}".lstrip("."), function)  # type: ignore[attr-defined]
            else:
                yield from _walk(child, where, inside)


def _silent(node: ast.AST, name: str) -> bool:
    """Fields that hold no mathematics of a method."""
    if name in ("annotation", "returns", "decorator_list", "defaults", "kw_defaults", "format_spec"):
        return True
    if isinstance(node, ast.AnnAssign) and name == "value" and isinstance(node.target, ast.Name):
        return not isinstance(node.value, ast.BinOp | ast.Call)
    if isinstance(node, ast.keyword):
        return node.arg in ("examples", "n", "paper", "defaults", "claim")
    return isinstance(node, ast.Call) and _called(node) in SILENT_CALLS


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.UnaryOp(op=ast.USub()):
            yield node.operand
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right) if not (
            _listed(left) or _listed(right)
        ):
            adds = isinstance(node.op, ast.Add)
            yield _like(node, ast.BinOp(left, ast.Sub() if adds else ast.Add(), right))
            yield left
            yield right if adds else _like(node, ast.UnaryOp(ast.USub(), right))
        case ast.Compare(ops=[op]) if type(op) in SIDES:
            yield _like(node, ast.Compare(node.left, [SIDES[type(op)]()], node.comparators))
        case ast.Constant(value=int(n)) if not isinstance(n, bool):
            yield _like(node, ast.Constant(n + 1))
            if n > 0:
                yield _like(node, ast.Constant(n - 1))
        case ast.Call():
            yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    name = _called(node)
    if name in OPPOSITE:
        other = copy.deepcopy(node)
        if isinstance(other.func, ast.Attribute):
            other.func.attr = OPPOSITE[name]
        else:
            other.func = _like(node, ast.Name(OPPOSITE[name], ast.Load()))
        yield other
    other = copy.deepcopy(node)
    bounds = [
        n for n in ast.walk(other) if isinstance(n, ast.Name) and n.id in OPPOSITE and n is not other.func
    ]
    if len({n.id for n in bounds}) == 2:  # clamp(1 - low, 1 + high)
        for n in bounds:
            n.id = OPPOSITE[n.id]
        yield other
    if name == "clamp" and len(node.keywords) == 1 and node.keywords[0].arg in OPPOSITE:
        other = copy.deepcopy(node)
        other.keywords[0].arg = OPPOSITE[node.keywords[0].arg]
        yield other
    first = 1 if name == "where" else 0
    pair = node.args[first : first + 2]
    if len(pair) == 2 and name not in ORDERLESS | OPPOSITE.keys() and not any(_plain(a) for a in pair):
        other = copy.deepcopy(node)
        other.args[first], other.args[first + 1] = other.args[first + 1], other.args[first]
        yield other


def _plain(node: ast.AST) -> bool:
    return isinstance(node, ast.Starred | ast.Lambda) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _listed(node: ast.AST) -> bool:
    """Text or a list, which + joins."""
    return isinstance(node, ast.List | ast.Tuple | ast.JoinedStr | ast.ListComp) or _plain(node)


def _like(old: ast.AST, new: Any) -> Any:
    return ast.fix_missing_locations(ast.copy_location(new, old))


# ---- how it is put in place, in a child --------------------------------------------------------------------


def put_in_place(module: str, mutant: Mutant, tree: ast.Module) -> None:
    """A changed function gets its new code, wherever it is held; other changes import the package anew."""
    mutant.apply()
    code = compile(ast.fix_missing_locations(tree), f"<{module}>", "exec")
    holder: Any = sys.modules[module]
    found: Any = None
    for name in mutant.where.split(".") if mutant.where else ():
        code = next((c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name), code)
        found = vars(holder).get(name)
        holder = found
    for held in ("fget", "__func__", "__wrapped__"):
        found = getattr(found, held, found)
    if isinstance(found, FunctionType) and found.__code__.co_freevars == code.co_freevars:
        found.__code__ = code
    else:
        _import_anew(module, compile(tree, f"<{module}>", "exec"))


def _import_anew(module: str, code: CodeType) -> None:
    import importlib.abc
    import importlib.machinery

    class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, path: object, target: object = None) -> Any:
            return importlib.machinery.ModuleSpec(name, self) if name == module else None

        def exec_module(self, made: Any) -> None:
            exec(code, made.__dict__)

    for name in [n for n in sys.modules if n == "etude" or n.startswith("etude.")]:
        del sys.modules[name]
    sys.meta_path.insert(0, Changed())


# ---- what should notice ------------------------------------------------------------------------------------


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


def checks_of(names: list[str]) -> Iterator[tuple[str, Callable[[], None]]]:
    for name in names:
        yield from rows_of(name, slow=False)
    for name in names[:SLOW_AT_MOST]:
        yield from rows_of(name, slow=True)


@cache
def tests_of(module: str, names: tuple[str, ...]) -> list[str]:
    """Ids of the tests whose text names something of the module, or one of its recipes."""
    found = []
    own = set(names) if ".methods." in module else set()
    for path in sorted(TESTS.glob("test_*.py")):
        if path.stem in ("test_laws", "test_resume", "test_mutants"):
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


# ---- running -----------------------------------------------------------------------------------------------


def in_a_fork(work: Callable[[], str], seconds: float) -> str:
    """What `work` returns in a child process; "timeout" if it takes longer, "died" if it does not return."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # the default action of SIGALRM ends the process
        try:
            said = work()
        except BaseException as error:
            said = f"raised {type(error).__name__}"
        with os.fdopen(write, "wb") as pipe:
            pipe.write(said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGALRM else "died"
    return said


def first_failure(module: str, where: str, broken: set[str], select: list[str]) -> str:
    """What fails first, or "" if nothing does. `broken`: checks that fail without any change."""
    names = recipes_of(module, where)
    for label, check in checks_of(names):
        if label not in broken:
            try:
                check()
            except Exception as error:
                return f"{label} ({type(error).__name__})"
    if select:
        import pytest

        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *select]
        if pytest.main(arguments) not in (0, 5):
            return "a test that names it"
    return ""


@cache
def broken_before(name: str) -> frozenset[str]:
    """Checks of a recipe that fail on the unchanged package."""

    def work() -> str:
        failed = []
        for slow in (False, True):
            for label, check in rows_of(name, slow):
                try:
                    check()
                except Exception:
                    failed.append(label)
        return json.dumps(failed)

    return frozenset(json.loads(in_a_fork(work, 600)))


@cache
def sound_tests(select: tuple[str, ...]) -> list[str]:
    """Those of `select` that pass on the unchanged package within a few seconds each, quickest first."""

    class Passed:
        times: ClassVar[dict[str, float]] = {}

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" and report.passed and report.duration < TEST_SECONDS:
                self.times[f"{TESTS / Path(report.nodeid).name}"] = report.duration

    def work() -> str:
        import pytest

        pytest.main(["-q", "-p", "no:cacheprovider", *select], plugins=[Passed()])
        return json.dumps(sorted(Passed.times, key=lambda test: Passed.times[test]))

    said = in_a_fork(work, 300) if select else ""
    return list(json.loads(said)) if said.startswith("[") else []


def examine(path: Path, number: int) -> tuple[str, Mutant]:
    """Runs mutant `number` of a file: ("" or what noticed it, the mutant)."""
    tree = ast.parse(path.read_text())
    mutant = mutants(tree)[number]
    module = "etude." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    names = tuple(recipes_of(module, mutant.where))
    broken = set().union(*(broken_before(name) for name in names))

    def work(select: list[str]) -> str:
        put_in_place(module, mutant, tree)
        return first_failure(module, mutant.where, broken, select)

    noticed = in_a_fork(lambda: work([]), SECONDS)
    if not noticed and (select := sound_tests(tuple(tests_of(module, names)))):
        noticed = in_a_fork(lambda: work(select), SECONDS)
    return noticed, mutant


def files(wanted: list[str]) -> list[Path]:
    found = [SOURCE / "train" / "step.py"]
    for pattern in ("objective/*.py", "credit/*.py", "reward/*.py", "methods/*/*.py"):
        found += sorted(SOURCE.glob(pattern))
    found = [p for p in found if p.name != "__init__.py"]
    return [p for p in found if not wanted or any(str(p).endswith(w) for w in wanted)]


def summary(results: dict[str, Any]) -> str:
    """Caught share, and the survivors that nobody has explained."""
    reasons = tomllib.loads(REASONS.read_text()).get("survivor", []) if REASONS.exists() else []
    explained = {(r["file"], r["mutant"]) for r in reasons}
    killed = sum(len(f["killed"]) for f in results.values())
    survivors = [(file, text) for file, f in results.items() for text in f["survived"].values()]
    open_ = [s for s in survivors if (s[0], s[1].partition(": ")[2]) not in explained]
    total = killed + len(survivors)
    lines = [f"{file}:{text}" for file, text in open_]
    lines.append(
        f"{total} mutants, {killed} caught ({killed / max(1, total):.1%}), {len(survivors) - len(open_)} "
        f"explained, {len(open_)} open"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true", help="also mutants that survived before")
    parser.add_argument("--list", action="store_true", help="only print the mutants")
    given = parser.parse_args()
    import pytest  # noqa: F401  (children fork with it)
    import torch

    import conftest  # noqa: F401
    from etude.methods import catalogue
    from etude.testing import laws, rows  # noqa: F401

    torch.set_num_threads(1)
    catalogue()
    todo = [(p, i, m) for p in files(given.files) for i, m in enumerate(mutants(ast.parse(p.read_text())))]
    if given.sample:
        todo = random.Random(given.seed).sample(todo, min(given.sample, len(todo)))
        todo.sort(key=lambda item: (str(item[0]), item[1]))
    if given.list:
        print("\n".join(f"{p.relative_to(SOURCE)}:{m.line} {m}" for p, _, m in todo))
        return 0
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results: dict[str, Any] = {}
    until = time.monotonic() + 60 * given.minutes
    for path, number, _ in todo:
        name = str(path.relative_to(SOURCE))
        source = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        if known.get(name, {}).get("source") != source:
            known[name] = {"source": source, "killed": [], "survived": {}}
        results[name] = here = known[name]
        if number in here["killed"] or (str(number) in here["survived"] and not given.again):
            continue
        if time.monotonic() > until:
            break
        noticed, mutant = examine(path, number)
        here["survived"].pop(str(number), None)
        if noticed:
            here["killed"].append(number)
        else:
            here["survived"][str(number)] = f"{mutant.line}: {mutant}"
            print(f"survived: {name}:{mutant.line} {mutant}", flush=True)
        RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True))
    print(summary(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
