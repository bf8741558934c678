"""What came of a program in the sandbox: it returned, raised, printed, or gave no output at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from etude.tasks import _sandboxed


@dataclass(frozen=True)
class Other:
    """A value without a literal, as the program's own `repr` shows it: equal to nothing."""

    kind: str
    shown: str


@dataclass(frozen=True)
class Returned:
    value: Any


@dataclass(frozen=True)
class Raised:
    kind: str
    message: str

    def __str__(self) -> str:
        return f"raised {self.kind}: {self.message}"


@dataclass(frozen=True)
class NotPython:
    """The program is not Python."""

    line: int
    message: str


@dataclass(frozen=True)
class Missing:
    """The program defines no such function."""


@dataclass(frozen=True)
class Ended:
    """The program gave no output: it ran out of time, ended its process, or wrote what is no reply."""

    cause: str

    def __str__(self) -> str:
        return self.cause


@dataclass(frozen=True)
class Printed:
    text: str
    error: Raised | NotPython | None = None


def nonsense() -> Ended:
    """Of a reply that no program was asked for."""
    return Ended("wrote over its own output")


def decoded(value: Any) -> Returned | Ended:
    """The value in what `_sandboxed.encode` wrote, if it is that."""
    try:
        return Returned(_value(value))
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError, UnicodeError):
        return nonsense()


def _value(value: Any) -> Any:
    """What `_sandboxed.encode` wrote. Raises where it did not write this."""
    match value:
        case None | bool():
            return value
        case ["int", str(digits)]:
            return int(digits, 16)
        case ["float", str(number)]:
            return float.fromhex(number)
        case ["complex", str(real), str(imaginary)]:
            return complex(float.fromhex(real), float.fromhex(imaginary))
        case ["str", str(text)]:
            return bytes.fromhex(text).decode("utf-8", "surrogatepass")
        case ["bytes", str(data)]:
            return bytes.fromhex(data)
        case ["other", str(kind), str(text)]:
            return Other(shown(kind), shown(text))
        case [("list" | "tuple" | "set" | "frozenset") as kind, list(items)]:
            made = [_value(v) for v in items]
            if kind in ("set", "frozenset"):
                _check_hashes(made)
            return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](made)
        case ["dict", list(items)]:
            keys = [_value(k) for k, _ in items]
            _check_hashes(keys)
            return dict(zip(keys, (_value(v) for _, v in items), strict=True))
    raise ValueError("no value")


def _check_hashes(keys: list[Any]) -> None:
    """Raises ValueError where most keys share few hashes, made up so that this process would compare them all with each
    other."""
    if len(keys) > 500 and max(Counter(map(hash, keys)).values()) > 100:
        raise ValueError("too many equal hashes")


def shown(text: str) -> str:
    """Text for people to read: a program that writes its replies itself could send control codes to a terminal."""
    return _sandboxed.plain(text[: _sandboxed.SHOWN])
