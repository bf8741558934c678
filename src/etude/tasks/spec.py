"""Reading the text that names a task set: `NAME[:param=value,...][,NAME...]|FILE`.

Commas separate both parameters and names: a piece without "=" before any ":" starts a new source. Lists are
written `[1;2]`. What stands alone behind the name of another library is the first parameter: `verifiers:my_env`. A file that exists is read whatever signs its path holds; quotes make anything one name or value.
`parse` leaves values as text; `convert` gives them the type that the parameter has.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import UserError, nearest
from etude.parsing import parse_value, type_name
from etude.tasks.locate import place, readable


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
    rest = spec.strip()
    while rest:
        piece = rest.split(",", 1)[0]
        if rest[0] in "\"'" or "=" not in piece or ":" in piece.split("=", 1)[0] or _file(rest, piece):
            name, rest = _name(rest, spec)
            parts.append((name, {}))
            if not name:
                raise UserError(f"task spec '{spec}': a task name is missing before '{piece}'")
            if rest.startswith(":"):
                rest = _first(name, rest[1:].strip(), parts[-1][1])
                rest = _param(rest, parts[-1][1], spec) if rest and not rest.startswith(",") else rest
        elif not parts:
            raise UserError(
                f"task spec '{spec}': '{piece.strip()}' must follow a task name, as in NAME:{piece.strip()}"
            )
        else:
            rest = _param(rest, parts[-1][1], spec)
        rest = _after(rest, spec)
    if not parts:
        raise UserError("the task spec is empty; name a task such as chain_sum or a file.jsonl")
    return [Part(name, params) for name, params in parts]


FIRST = {"gymnasium": "env", "miniwob": "page", "openenv": "url", "textarena": "env", "verifiers": "env"}
"""The parameter that may stand without its name, right behind the source's."""


def _first(name: str, rest: str, params: dict[str, str]) -> str:
    """Takes the parameter that needs no name off the beginning of `rest`; what follows it, without its comma."""
    piece, _, tail = rest.partition(",")
    if name not in FIRST or not piece.strip() or "=" in piece:
        return rest
    params[FIRST[name]] = piece.strip()
    return f",{tail}" if tail else ""


def quoted(text: str) -> str:
    """A name or value as `parse` reads it back."""
    if not re.search(r"[\s:,=\"']", text):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def as_pairs(spec: str) -> str:
    """The spec in which every file is one of pairs: `FILE` becomes `FILE:check=pairs`."""
    made = []
    for part in parse(spec):
        given = {"check": "pairs", **part.params}
        made.append(f"{quoted(part.name)}:{','.join(f'{k}={quoted(v)}' for k, v in given.items())}")
    return ",".join(made)


def _after(rest: str, spec: str) -> str:
    """What follows the comma that ends a piece. UserError where there is nothing, or something else than a comma."""
    rest = rest.strip()
    if not rest:
        return ""
    if not rest.startswith(","):
        raise UserError(f"task spec '{spec}': a comma or a colon must follow a name in quotes, not '{rest}'")
    following = rest[1:].strip()
    if not following or following.startswith(","):
        raise UserError(f"task spec '{spec}': there is nothing between two commas or at an end")
    return following


def _name(rest: str, spec: str) -> tuple[str, str]:
    """A source's name at the beginning of `rest`, in quotes or not, and what follows it. The longest piece that is a file
    is one name, whatever signs it holds."""
    if rest[0] in "\"'":
        return _quoted(rest, spec)
    if found := _file(rest, rest.split(",", 1)[0]):
        return found, rest[len(found) :]
    if rest.startswith(","):
        raise UserError(f"task spec '{spec}': there is nothing between two commas or at an end")
    drive = 2 if re.match(r"[A-Za-z]:[\\/]", rest) else 0
    end = next((i for i in range(drive, len(rest)) if rest[i] in ":,"), len(rest))
    return rest[:end].strip(), rest[end:]


def _file(rest: str, piece: str) -> str:
    """The file that `rest` begins with, or "": the longest such piece that exists, else, where it begins like a path, the
    shortest that ends like a file of tasks."""
    ends = [i for i in range(1, len(rest) + 1) if i == len(rest) or rest[i] in ":,"]
    for end in reversed(ends):
        if _exists(rest[:end]):
            return rest[:end]
    begin = re.split(r"[:,]", piece, maxsplit=1)[0] if not re.match(r"[A-Za-z]:[\\/]", piece) else piece
    if re.search(r"[/\\]|^~", begin):
        return next((rest[:e] for e in ends if readable(rest[:e])), "")
    return ""


def _exists(path: str) -> bool:
    """Whether a file of tasks, or a folder named by a path, is there."""
    try:
        found = place(path)
        return found.is_file() if readable(path) else bool(re.search(r"[/\\]|^~", path)) and found.is_dir()
    except (OSError, ValueError):
        return False


def _quoted(rest: str, spec: str) -> tuple[str, str]:
    end = rest.find(rest[0], 1)
    if end < 0:
        raise UserError(f"task spec '{spec}': the quote {rest[0]} is never closed")
    return rest[1:end], rest[end + 1 :].lstrip()


def _param(rest: str, params: dict[str, str], spec: str) -> str:
    """Reads param=value at the beginning of `rest` into `params`; what follows it."""
    piece = rest.split(",", 1)[0].strip()
    key, _, tail = rest.partition("=")
    key, tail = key.strip(), tail.lstrip()
    if "=" not in piece or not key or not tail or tail.startswith(","):
        raise UserError(f"task spec '{spec}': '{piece}' must read param=value")
    if key in params:
        raise UserError(f"task spec '{spec}': parameter '{key}' is given twice")
    if tail[0] in "\"'":
        params[key], tail = _quoted(tail, spec)
    elif key == "eval" and (found := _file(tail, tail.split(",", 1)[0])):
        params[key], tail = found, tail[len(found) :]
    else:
        value, comma, following = tail.partition(",")
        params[key], tail = value.strip(), comma + following
    return tail


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
