"""Which definitions of the stage rooms serve one method file only, and therefore belong into it.

    python -m etude.testing.vocabulary

Counted are top-level functions, classes and constants. A method file uses what it names, and what that names in turn;
the rest of the package (train, evaluate, lab, ...) counts as one more user.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOMS = ("credit", "objective", "rollout", "search", "reward", "curriculum")
LIMIT = 0.05  # share of the definitions that may serve one method only
PACKAGE = "etude"
REST = "the rest of the package"

Definition = tuple[str, str]  # (module, name)


@dataclass
class Module:
    name: str
    tree: ast.Module
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, Definition] = field(default_factory=dict)  # local name -> where it comes from

    @property
    def room(self) -> str:
        """The folder below the package that holds the module."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def is_method(self) -> bool:
        return self.room == "methods" and self.name.count(".") == 3


@dataclass(frozen=True)
class Vocabulary:
    """`single`: {definition: the one method that uses it}; `unused`: those that nothing reaches."""

    total: int
    single: dict[str, str]
    unused: list[str]

    @property
    def share(self) -> float:
        return len(self.single) / max(1, self.total)

    def __str__(self) -> str:
        lines = [f"{d} serves {method} only" for d, method in self.single.items()]
        lines += [f"{d} serves nobody" for d in self.unused]
        said = f"{len(self.single)} of {self.total} definitions serve one method only: {self.share:.1%}"
        return "\n".join([*lines, said])


def measure(source: Path | None = None) -> Vocabulary:
    """Of the package in folder `source` (default: this one)."""
    found = users(source)
    single = {_said(d): next(iter(who)) for d, who in found.items() if len(who) == 1 and REST not in who}
    return Vocabulary(len(found), single, [_said(d) for d, who in found.items() if not who])


def users(source: Path | None = None) -> dict[Definition, set[str]]:
    """{definition of a room: the methods ("topic.file") that reach it, and REST}."""
    modules = {m.name: m for m in _read(source or Path(__file__).parent.parent)}
    rooms = {name: m for name, m in modules.items() if m.room in ROOMS}
    uses = {
        (m.name, name): _named(m, node, rooms) - {(m.name, name)}
        for m in rooms.values()
        for name, node in m.definitions.items()
    }
    found: dict[Definition, set[str]] = {definition: set() for definition in uses}
    for m in modules.values():
        if m.room not in (*ROOMS, "testing"):
            user = m.name.removeprefix(f"{PACKAGE}.methods.") if m.is_method else REST
            _reach(_named(m, m.tree, rooms), user, uses, found)
    return found


def _said(definition: Definition) -> str:
    module, name = definition
    return f"{module.removeprefix(PACKAGE + '.')}.{name}"


def _reach(
    start: set[Definition],
    user: str,
    uses: dict[Definition, set[Definition]],
    users: dict[Definition, set[str]],
) -> None:
    """Notes `user` at everything that can be reached from `start`."""
    waiting = list(start)
    while waiting:
        definition = waiting.pop()
        if user not in users[definition]:
            users[definition].add(user)
            waiting += uses[definition]


def _read(source: Path) -> Iterator[Module]:
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join([PACKAGE, *(p for p in parts if p != "__init__")])
        module = Module(name, ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module.imported |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        for statement in module.tree.body:
            module.definitions |= dict.fromkeys(_names(statement), statement)
        yield module


def _names(statement: ast.stmt) -> list[str]:
    """The names that a top-level statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = (
        statement.targets
        if isinstance(statement, ast.Assign)
        else [statement.target]
        if isinstance(statement, ast.AnnAssign)
        else []
    )
    names = [node.id for t in targets for node in ast.walk(t) if isinstance(node, ast.Name)]
    return [name for name in names if name != "__all__"]


def _named(module: Module, tree: ast.AST, rooms: dict[str, Module]) -> set[Definition]:
    """The rooms' definitions that stand in `tree`, as `name`, as `module.name`, or as the text "module:name" of a registry."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(module.imported.get(node.id, (module.name, node.id)))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            folder, name = module.imported.get(node.value.id, ("", ""))
            found.add((f"{folder}.{name}", node.attr))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(":") == 1:
            path, name = node.value.split(":")  # an entry of a registry
            found.add((path, name))
    return {(m, name) for m, name in found if m in rooms and name in rooms[m].definitions}


if __name__ == "__main__":
    print(measure())
