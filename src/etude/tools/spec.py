"""Reading the text that names tools: `python,calculator,search:docs/,files,sql:FILE,./mine.py:fn,mcp:COMMAND`.

Commas separate; quotes keep a text with commas together: `"mcp:server --only a,b",python`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etude import modules
from etude.errors import UserError
from etude.tasks.isolate import Pool
from etude.tasks.rows import rows
from etude.tools import shipped, users
from etude.tools.kit import ToolSource

_FILE = re.compile(r"(?P<path>.*\.py):(?P<name>\w+)")
_NAMED = re.compile(r"(?P<module>\w[\w.]*):(?P<name>\w+)")
GIVEN = "given:"
"""Before the name of a function that was handed over from Python."""

MADE: Mapping[str, Callable[[str], ToolSource]] = {
    "calculator": shipped.made_calculator,
    "python": shipped.made_python,
    "search": shipped.made_search,
    "files": shipped.Files,
    "sql": shipped.Sql,
}
"""What comes with etude: (what follows the colon) -> a source."""

PLACES = ("search", "files", "sql")  # whose text behind the colon is a path

_given: dict[str, Any] = {}


def parts(text: str) -> list[str]:
    """The tools of a text, each as it was written. UserError where a quote is not closed."""
    try:
        found = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise UserError(f"--tools '{text}' cannot be read: {error}") from None
    return [part.strip() for part in found if part.strip()]


def joined(found: Sequence[str]) -> str:
    """The text that `parts` reads as these."""
    return ",".join(f'"{p}"' if "," in p else p for p in found)


def text_of(tools: str | Sequence[Any]) -> str:
    """The text that stands for tools given from Python: text as it is, functions and classes by name. A process that goes on
    with the run must be given them again."""
    if isinstance(tools, str):
        return absolute(tools)
    found = []
    for one in tools:
        if isinstance(one, str):
            found += parts(absolute(one))
            continue
        name = getattr(one, "__name__", "")
        if not callable(one) or not name.isidentifier():
            raise UserError(
                f"{one!r:.60} is no tool; it must be a typed function with a name, a class, or text"
            )
        _given[name] = one
        found.append(f"{GIVEN}{name}")
    return joined(found)


def absolute(text: str) -> str:
    """The text with every path made absolute: it is read alike from every directory."""
    found = []
    for part in parts(text):
        word, colon, rest = part.partition(":")
        if colon and word in PLACES and rest:
            part = f"{word}:{Path(rest).expanduser().resolve()}"
        elif word != "mcp" and (match := _FILE.fullmatch(part)):
            part = f"{Path(match['path']).expanduser().resolve()}:{match['name']}"
        found.append(part)
    return joined(found)


def users_own(text: str) -> list[Any]:
    """The functions and classes of the user's that a text names. UserError where there is none of a name."""
    return [thing for part in parts(text) if (thing := _own(part)) is not None]


def _own(part: str) -> Any:
    word, _, rest = part.partition(":")
    if word in MADE or word == "mcp":
        return None
    if part.startswith(GIVEN):
        if rest not in _given:
            raise UserError(
                f"the tool '{rest}' was given from Python; give it again: resume(path, tools=[{rest}])"
            )
        return _given[rest]
    if match := _FILE.fullmatch(part):
        path = Path(match["path"]).expanduser().resolve()
        if not path.is_file():
            raise UserError(f"the tool '{part}': there is no file '{match['path']}'")
        return _found(modules.load(path), match["name"], part)
    if match := _NAMED.fullmatch(part):
        return _found(modules.imported(match["module"]), match["name"], part)
    known = [*MADE, "./FILE.py:NAME", "module:NAME", "mcp:COMMAND"]
    raise UserError(f"there is no tool '{part:.60}'; known are {', '.join(known)}")


def _found(module: Any, name: str, part: str) -> Any:
    thing = getattr(module, name, None)
    if not callable(thing):
        raise UserError(f"the tool '{part}': there is no function or class '{name}' in it")
    return thing


def sources(text: str, pool: Pool) -> list[ToolSource]:
    """What a text names. UserError for what is not there."""
    return [_source(part, pool) for part in parts(text)]


def _source(part: str, pool: Pool) -> ToolSource:
    word, _, rest = part.partition(":")
    if word in MADE:
        return MADE[word](rest)
    if word == "mcp":
        from etude.tools import mcp  # not loaded without it

        return mcp.McpServer(rest)
    return users.of(_own(part), pool)


def described_in(path: str) -> dict[str, str]:
    """{tool: description}, of rows with the columns `tool` and `answer`. UserError for rows that have none."""
    found = {}
    for where, row in rows(path):
        if not (isinstance(row.get("tool"), str) and isinstance(row.get("answer"), str)):
            raise UserError(
                f"{where} describes no tool; rows of run.tool_docs have the columns 'tool' and 'answer', both text"
            )
        found[row["tool"]] = row["answer"]
    return found
