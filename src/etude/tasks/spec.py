"""Reading the text that names a task set: `NAME[:param=value,...][,NAME...]|FILE.jsonl`.

Commas separate both parameters and names: a piece without "=" before any ":" starts a new source. Lists are
written `[1;2]`. Values stay text here; `convert` gives them the type that the parameter has.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any

from etude.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Part:
    """One source of a spec: its name or file, and its parameters as text."""

    name: str
    params: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Param:
    """A parameter of a source, for validation and for the catalogue. `type`: a Python type annotation."""

    name: str
    type: Any
    default: Any
    doc: str = ""

    @property
    def type_name(self) -> str:
        """The type as a user reads it."""
        return self.type.__name__ if isinstance(self.type, type) else str(self.type).replace("typing.", "")


def parse(spec: str) -> list[Part]:
    """The sources of a spec. Raises UserError for an empty spec, a nameless parameter or one given twice."""
    parts: list[tuple[str, dict[str, str]]] = []
    for piece in _pieces(spec):
        before = piece.split("=", 1)[0]
        if "=" not in piece or ":" in before:
            name, _, first = piece.partition(":")
            parts.append((name.strip(), {}))
            if not name.strip():
                raise UserError(f"task spec '{spec}': a task name is missing before '{piece}'")
            if not first:
                continue
            piece = first
        if not parts:
            raise UserError(f"task spec '{spec}': '{piece}' must follow a task name, as in NAME:{piece}")
        key, equals, value = (s.strip() for s in piece.partition("="))
        if not equals or not key or not value:
            raise UserError(f"task spec '{spec}': '{piece}' must read param=value")
        if key in parts[-1][1]:
            raise UserError(f"task spec '{spec}': parameter '{key}' is given twice")
        parts[-1][1][key] = value
    if not parts:
        raise UserError("the task spec is empty; name a task such as chain_sum or a file.jsonl")
    return [Part(name, params) for name, params in parts]


def _pieces(spec: str) -> list[str]:
    pieces = [p.strip() for p in spec.split(",")]
    if spec.strip() and not all(pieces):
        raise UserError(f"task spec '{spec}': there is nothing between two commas or at an end")
    return [p for p in pieces if p]


def typed(source: str, given: Mapping[str, Any], params: typing.Sequence[Param]) -> dict[str, Any]:
    """The given parameters in their types. Raises UserError for an unknown name or an unreadable value."""
    known = {p.name: p for p in params}
    values = {}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{source} has no parameter '{name}'{nearest(name, known)}")
        values[name] = convert(source, known[name], value)
    return values


def convert(source: str, param: Param, value: Any) -> Any:
    """`value` (text, or already of some type) as the parameter's type. Raises UserError."""
    try:
        return _as(param.type, value)
    except (ValueError, TypeError) as error:
        why = str(error) or "it cannot be read"
        raise UserError(f"{source}: {param.name}='{value}' is not {_article(param)}: {why}") from None


def _article(param: Param) -> str:
    name = param.type_name
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
        name, name
    )


def _as(kind: Any, value: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _optional(args, value)
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"choose one of {', '.join(map(str, args))}")
        return value
    if kind in (list, tuple) or origin in (list, tuple) or "Sequence" in str(origin):
        return _sequence(tuple if kind is tuple or origin is tuple else list, args, value)
    if kind is bool:
        return _bool(value)
    if kind is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError("a whole number is wanted")
        return _number(int, value)
    if kind is float:
        if isinstance(value, bool):
            raise ValueError("a number is wanted")
        return _finite(_number(float, value))
    if kind in (datetime.date, datetime.time):
        return value if isinstance(value, kind) else kind.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value if isinstance(value, kind) else _enum(kind, value)
    if kind is str:
        return str(value)
    if isinstance(value, str):
        raise ValueError("it cannot be written as text; set it from Python")
    return value


def _optional(args: tuple[Any, ...], value: Any) -> Any:
    if type(None) in args and (value is None or str(value).lower() == "none"):
        return None
    real = [a for a in args if a is not type(None)]
    for i, kind in enumerate(real):
        try:
            return _as(kind, value)
        except (ValueError, TypeError):
            if i == len(real) - 1:
                raise
    raise ValueError("it cannot be read")


def _sequence(make: Any, args: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str):
        if not (value.startswith("[") and value.endswith("]")):
            value = f"[{value}]"  # a list of one may be written without brackets
        value = [v.strip() for v in value[1:-1].split(";") if v.strip()]
    inner = args[0] if args else None
    return make(_guess(v) if inner is None else _as(inner, v) for v in value)


def _guess(text: Any) -> Any:
    """A number if the text reads as one, else the text: for lists whose elements have no stated type."""
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, TypeError):
            continue
    return text


def _number(kind: Any, value: Any) -> Any:
    try:
        return kind(value)
    except (ValueError, TypeError):
        raise ValueError("a whole number is wanted" if kind is int else "a number is wanted") from None


def _finite(number: float) -> float:
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("it must be finite")
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError("write true or false")
    return words[str(value).lower()]


def _enum(kind: type[enum.Enum], value: Any) -> enum.Enum:
    for member in kind:
        if str(value).lower() in (member.name.lower(), str(member.value).lower()):
            return member
    raise ValueError(f"choose one of {', '.join(m.name.lower() for m in kind)}")
