"""Would the tests notice a wrong sign? Changes one place of the mathematics at a time and runs what should notice.

    python bench/mutants.py                        # all mutants; goes on where it stopped
    python bench/mutants.py --sample 300 --seed 1  # a random sample
    python bench/mutants.py credit/group.py        # of these files; with --again, also those that were done before

Mutants: sign flips, + <-> -, dropped terms of sums, swapped bounds (min <-> max, < <-> >, low <-> high), integers off by
one, swapped arguments. Left alone: settings' ranges and defaults, annotations, error messages, the test rows.

A mutant is run in a fork of a process that has imported everything: first the rows of the recipes that reach the changed
definition, then the tests that name it, then reductions and laws of some of the recipes. The first failure kills it, and
so does the time limit. Results: bench/results/mutants.json. Survivors that are no defect of the tests, with the reason:
bench/mutants.toml.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, ClassVar

from mutant_checks import ROOT, SLOW_AT_MOST, SOURCE, TESTS, recipes_of, rows_of, tests_of
from mutations import Mutant, mutants

os.environ["OMP_NUM_THREADS"] = "1"
RESULTS, REASONS = ROOT / "bench" / "results" / "mutants.json", ROOT / "bench" / "mutants.toml"
sys.path[:0] = [str(SOURCE.parent), str(TESTS)]
SECONDS = 60  # per mutant, for either part
TEST_SECONDS = 4  # tests that take longer are left out

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


def failing_check(names: list[str], slow: bool) -> str:
    """The first row (or reduction or law, with `slow`) of the recipes that fails, or "" if none does."""
    for name in names:
        for label, check in rows_of(name, slow):
            if label not in broken_before(name, slow):
                try:
                    check()
                except Exception as error:
                    return f"{label} ({type(error).__name__})"
    return ""


def failing_test(select: list[str]) -> str:
    import pytest

    return (
        ""
        if pytest.main(["-x", "-q", "-p", "no:cacheprovider", *select]) in (0, 5)
        else "a test that names it"
    )


@cache
def broken_before(name: str, slow: bool) -> frozenset[str]:
    """Checks of a recipe that fail on the unchanged package."""

    def work() -> str:
        failed = []
        for label, check in rows_of(name, slow):
            try:
                check()
            except Exception:
                failed.append(label)
        return json.dumps(failed)

    return frozenset(json.loads(in_a_fork(work, 600)))


@cache
def sound_tests(select: tuple[str, ...]) -> list[str]:
    """Those of `select` that pass on the unchanged package within a few seconds each, and half a minute together;
    quickest first."""

    class Passed:
        times: ClassVar[dict[str, float]] = {}
        until = time.monotonic() + SECONDS / 2

        def pytest_collection_finish(self, session: Any) -> None:
            self.session = session

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" and report.passed and report.duration < TEST_SECONDS:
                self.times[f"{TESTS / Path(report.nodeid).name}"] = report.duration
            if time.monotonic() > self.until:
                self.session.shouldstop = "long enough"

    def work() -> str:
        import pytest

        pytest.main(["-q", "-p", "no:cacheprovider", *select], plugins=[Passed()])
        return json.dumps(sorted(Passed.times, key=lambda test: Passed.times[test]))

    said = in_a_fork(work, 300) if select else ""
    return list(json.loads(said)) if said.startswith("[") else []


@cache
def used_elsewhere(path: Path) -> frozenset[str]:
    """The names that other modules of the package import from this one."""
    module = "etude." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    found: set[str] = set()
    for other in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(other.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == module:
                found |= {a.name for a in node.names}
    return frozenset(found)


def examine(path: Path, number: int) -> tuple[str, Mutant]:
    """Runs mutant `number` of a file: ("" or what noticed it, the mutant)."""
    tree = ast.parse(path.read_text())
    mutant = mutants(tree, used_elsewhere(path))[number]
    module = "etude." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    names = recipes_of(module, mutant.where)
    few = names[:: max(1, len(names) // SLOW_AT_MOST)]  # spread over the topics

    def noticed(kind: str) -> str:
        if kind == "tests":
            select = sound_tests(tuple(tests_of(module, tuple(names))))
            return in_place(lambda: failing_test(select)) if select else ""
        slow, some = (True, few) if kind == "laws" else (False, names)
        for name in some:
            broken_before(name, slow)  # before anything is changed
        return in_place(lambda: failing_check(some, slow))

    def in_place(work: Callable[[], str]) -> str:
        def changed() -> str:
            put_in_place(module, mutant, tree)
            return work()

        return in_a_fork(changed, SECONDS)

    kinds = ("tests", "laws") if path.name in ("step.py", "update.py") else ("rows", "tests", "laws")
    return next(filter(None, map(noticed, kinds)), ""), mutant


def files(wanted: list[str]) -> list[Path]:
    found = [SOURCE / "train" / "step.py", SOURCE / "update.py"]
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
    todo = [
        (p, i, m)
        for p in files(given.files)
        for i, m in enumerate(mutants(ast.parse(p.read_text()), used_elsewhere(p)))
    ]
    if given.sample:
        # In the order drawn: what a run that was stopped has done is a random sample too.
        todo = random.Random(given.seed).sample(todo, min(given.sample, len(todo)))
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
