"""The order of the rooms: an import points downwards, no two modules need each other, and no file is long."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "etude"
ROOMS = """
errors printable files parsing process registry modules machine cache
settings seeds types update
batch text
models
sampling tasks event_loop
tools
scale
objective
stages recipe channels
rollout
reward credit curriculum
search
assembly fixtures
methods evaluate
report
train
compare lab claims study studies data docs doctor testing serve export
cli
launch __main__
""".strip().splitlines()
HEIGHT = {room: height for height, line in enumerate(ROOMS) for room in line.split()}


def modules() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(("etude", *(p for p in parts if p != "__init__")))] = path
    return found


def imported(path: Path, known: dict[str, Path], everywhere: bool = False) -> set[str]:
    """Modules of etude that a module imports when it is imported itself; with `everywhere`, in functions too.
    What stands under TYPE_CHECKING is never executed and does not count."""
    found: set[str] = set()

    def look(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
                continue
            if isinstance(child, ast.Import):
                found.update(a.name for a in child.names)
            if isinstance(child, ast.ImportFrom) and child.module:
                whole = {f"{child.module}.{a.name}" for a in child.names}
                found.update({m if m in known else child.module for m in whole})
            look(child)

    look(ast.parse(path.read_text()))
    return {m for m in found if m in known and m != "etude"}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place() -> None:
    assert {room(m) for m in modules() if m != "etude"} == set(HEIGHT)


def test_imports_point_downwards() -> None:
    known = modules()
    upward = [
        f"{module} imports {other}"
        for module, path in known.items()
        if module != "etude"
        for other in imported(path, known)
        if HEIGHT[room(other)] > HEIGHT[room(module)]
    ]
    assert not upward, "\n".join(upward)


def test_no_two_modules_need_each_other() -> None:
    """Not even from inside functions, where a circle hides until it is run."""
    known = modules()
    graph = {m: imported(p, known, everywhere=True) for m, p in known.items() if m != "etude"}
    finished: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in finished:
            for other in sorted(graph[module]):
                walk(other, (*trail, module))
            finished.add(module)

    for module in sorted(graph):
        walk(module, ())


def test_files_stay_short() -> None:
    """About 300 lines of source, 360 where that keeps a whole together; 400 of tests."""
    limits = {SOURCE: 360, Path(__file__).parent: 400}
    lengths = {p: len(p.read_text().splitlines()) for place in limits for p in place.rglob("*.py")}
    long = [
        f"{p}: {n}"
        for p, n in lengths.items()
        if n > limits[SOURCE if SOURCE in p.parents else Path(__file__).parent]
    ]
    assert not long, "\n".join(long)
