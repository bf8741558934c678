"""What a task holds besides its question, as hashes: so that a run that is resumed can tell what was changed meanwhile."""

from __future__ import annotations

import copyreg
import inspect
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

from etude.tasks.source import digest
from etude.types import Task

DEEPEST = 12  # levels of nested values that are looked at


def contents(tasks: Iterable[Task]) -> dict[str, str]:
    """{what: hash} of tasks in any order. The questions are their keys: prompt, kind and gold answer."""
    ordered = sorted(tasks, key=lambda task: task.key)
    parts: dict[str, list[Any]] = {
        "questions": [t.key for t in ordered],
        "checks": [[plain(t.check), plain(t.environment)] for t in ordered],
        "difficulties": [t.difficulty for t in ordered],
        "references": [t.reference for t in ordered],
        "hints": [t.hints for t in ordered],
        "columns": [{k: plain(v) for k, v in t.meta.items() if k != "source"} for t in ordered],
    }
    return {name: digest(held) for name, held in parts.items()}


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it, the same in every process: objects by their class and what they hold, functions by their
    name, text and what they close over."""
    if value is None or isinstance(value, str | int | float):
        return value
    if depth > DEEPEST:
        return "..."
    deeper = depth + 1
    if isinstance(value, list | tuple):
        return [plain(v, deeper) for v in value]
    if isinstance(value, dict):
        return sorted(([plain(k, deeper), plain(v, deeper)] for k, v in value.items()), key=json.dumps)
    if isinstance(value, set | frozenset):
        return sorted((plain(v, deeper) for v in value), key=json.dumps)
    if isinstance(value, bytes | bytearray):
        return digest(value.hex())
    if isinstance(value, type | BuiltinFunctionType):
        return _name(value)
    held = _held(value)
    return held if isinstance(held, str) else [_name(type(value)), plain(held, deeper)]


def _held(value: Any) -> Any:
    """What an object consists of."""
    if isinstance(value, FunctionType):
        return [_name(value), _text(value), value.__defaults__, _closed_over(value)]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if is_dataclass(value):  # what a property remembers is no part of it
        kind: Any = type(value)
        return [getattr(value, name) for name in _fields(kind)]
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        made: Any = reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception:  # cannot be pickled: told apart by its class only
        return []
    return made if isinstance(made, str) else list(made[:3])


@cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"


def _text(function: FunctionType) -> str:
    """What a function says; of this package, which is another with another version, nothing."""
    if str(function.__module__).split(".")[0] == "etude":
        return ""
    return _source(inspect.unwrap(function).__code__)


@cache
def _source(code: CodeType) -> str:
    """Of thousands of tasks whose checks are one function, read once."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return ""


def _closed_over(function: FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            found.append(None)
    return found
