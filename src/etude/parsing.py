"""The value of a typed parameter, from text or from a value of about the right type: for settings and for tasks.

Text: numbers, true/false, yes/no, 1/0; "none" where the type allows None; lists as `[1;2]` or `1;2`, in whose texts \\n is a
new line, \\t a tab, and \\x3b a semicolon.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import re
import types
import typing
from typing import Any


def parse_value(kind: Any, value: Any) -> Any:
    """`value` as the type `kind`, an annotation. Raises ValueError that says what is wanted."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(args, value)
    if value is None:
        raise ValueError("a value is wanted")
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"choose one of {', '.join(map(str, args))}")
        return value
    if kind in (list, tuple) or origin in (list, tuple) or "Sequence" in str(origin):
        return _sequence(tuple if kind is tuple or origin is tuple else list, args, value)
    if kind is bool:
        return _bool(value)
    if kind is int:
        return _whole(value)
    if kind is float:
        return _number(value)
    if kind in (datetime.date, datetime.time):
        return value if isinstance(value, kind) else kind.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value if isinstance(value, kind) else _enum(kind, value)
    if kind is str:
        return str(value)
    if isinstance(value, str):
        raise ValueError("it cannot be written as text; set it from Python")
    return value


def type_name(kind: Any) -> str:
    """A type as a user reads it."""
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _union(kinds: tuple[Any, ...], value: Any) -> Any:
    if type(None) in kinds and (value is None or str(value).lower() == "none"):
        return None
    *others, last = [kind for kind in kinds if kind is not type(None)]
    for kind in others:
        try:
            return parse_value(kind, value)
        except ValueError:
            continue
    return parse_value(last, value)


def _sequence(make: Any, args: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str):
        inside = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        value = [unescaped(v) if str in args else v for v in (v.strip(" ") for v in inside.split(";")) if v]
    return make(parse_value(args[0], v) if args else _guess(v) for v in value)


ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", ";": "\\x3b"}


def escaped(text: str) -> str:
    """An element of a list as text can hold it."""
    kept = "".join(ESCAPES.get(c, c) for c in text)
    kept = re.sub(r"^[ \[]|[ \]]$", lambda edge: f"\\x{ord(edge[0]):02x}", kept)
    return kept


def unescaped(text: str) -> str:
    """What `escaped` was given; a backslash before anything else stands for itself."""
    named = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    return re.sub(
        r"\\(?:x([0-9a-fA-F]{2})|([ntr\\]))",
        lambda found: chr(int(found[1], 16)) if found[1] else named[found[2]],
        text,
    )


def _guess(text: Any) -> Any:
    """A number if the text reads as one, else the text: for lists whose elements have no stated type."""
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, TypeError):
            continue
    return text


def _whole(value: Any) -> int:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return int(value)
    try:
        number = float(value)  # text such as 1e3 is a whole number too
        if isinstance(value, bool) or not number.is_integer():
            raise ValueError
        return int(number) if isinstance(value, str) else int(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("a whole number is wanted") from None


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("a number is wanted")
    try:
        return float(value)
    except (ValueError, TypeError):
        raise ValueError("a number is wanted") from None


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
