"""The mutants of a file: every place of its mathematics that a slip could have made otherwise, changed in turn."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


def mutants(tree: ast.Module, used_elsewhere: frozenset[str] = frozenset()) -> list[Mutant]:
    """All mutants of a module; of a method's file, not those of functions that only its test rows use."""
    rows = _of_rows(tree, used_elsewhere)
    found = [m for m in _walk(tree, "") if m.where.split(".")[0] not in rows]
    return list({(m.line, str(m)): m for m in found}.values())


def _of_rows(tree: ast.Module, used_elsewhere: frozenset[str]) -> set[str]:
    """Functions of the module that nothing reaches but `examples=`; none in a module without test rows."""
    functions = {
        n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    rows = [
        k for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "examples" for k in ast.walk(n)
    ]
    if not rows:
        return set()
    inside = {id(node) for node in rows}
    others = [n for n in tree.body if n not in functions.values()]
    found = {n.id for o in others for n in ast.walk(o) if isinstance(n, ast.Name) and id(n) not in inside}
    todo = [*found, *used_elsewhere]
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name in functions and name not in reached:
            reached.add(name)
            todo += [n.id for n in ast.walk(functions[name]) if isinstance(n, ast.Name)]
    return set(functions) - reached


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
        if ast.unparse(other) != ast.unparse(node):
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
