"""Reading the text that names a task set: `NAME[:param=value,...][,NAME...]|FILE.jsonl`.

Commas separate both parameters and names: a piece without "=" before any ":" starts a new source. Lists are
written `[1;2]`. `parse` leaves values as text; `convert` gives them the type that the parameter has.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import UserError, nearest
from etude.parsing import parse_value, type_name


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
        return type_name(self.type)


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


def typed(source: str, given: Mapping[str, Any], params: Sequence[Param]) -> dict[str, Any]:
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
        read = parse_value(param.type, value)
        if isinstance(read, float) and not math.isfinite(read):
            raise ValueError("it must be finite")
        return read
    except ValueError as error:
        raise UserError(f"{source}: {param.name}='{value}' is not {_article(param)}: {error}") from None


def _article(param: Param) -> str:
    name = param.type_name
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
        name, name
    )
