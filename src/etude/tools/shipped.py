"""The tools that come with etude: a calculator, Python in the sandbox, a search over a folder of texts, files of the episode's
own, and an SQL database of the task's."""

from __future__ import annotations

import ast
import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.tasks import confinement, outcomes, sandbox
from etude.tasks.arithmetic import evaluate
from etude.tools.retrieval import corpus_of
from etude.tools.tool import Tool, ToolError, tool
from etude.types import Task

PASSAGES = 3  # that a search gives
ROWS = 50  # of a query that are shown
SQL_SECONDS = 2.0
SQL_BYTES = 64 << 20  # of one database


class Fixed:
    """Tools without a state: the same in every episode."""

    def __init__(self, name: str, *tools: Tool) -> None:
        self.name, self._tools = name, tools

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        return self._tools

    def close(self) -> None:
        """Nothing is held."""


# ---- arithmetic and programs ---------------------------------------------------------------------------------------------


def calculator(expression: str) -> str:
    """The value of an arithmetic expression: numbers, + - * / and brackets.

    Args:
        expression: such as (3 + 4) * 2
    """
    found = evaluate(expression.strip().rstrip("=").strip())
    if found is None:
        raise ToolError(f"'{expression[:80]}' is no expression of numbers, + - * / and brackets with a value")
    return str(found.numerator) if found.denominator == 1 else repr(float(found))


def python(code: str) -> str:
    """Runs a Python program and gives what it prints; every program begins anew.

    Args:
        code: the program
    """
    with sandbox.shared().program() as program:
        found = program.main(_showing(code))
    if isinstance(found, outcomes.Ended):
        raise ToolError(f"the program {found.cause}")
    if found.error is not None:
        what = (
            f"line {found.error.line} cannot be read: {found.error.message}"
            if isinstance(found.error, outcomes.NotPython)
            else f"{found.error.kind}: {found.error.message}"
        )
        raise ToolError(f"{found.text}{what}")
    return found.text


def _showing(code: str) -> str:
    """The program, whose last line is printed where it is an expression, as at the prompt."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr) and not _prints(last.value):
            shown = ast.parse("(lambda value: None if value is None else print(value))(0)").body[0]
            assert isinstance(shown, ast.Expr)
            assert isinstance(shown.value, ast.Call)
            shown.value.args = [last.value]
            tree.body[-1] = shown
            return ast.unparse(ast.fix_missing_locations(tree))
    return code


def _prints(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def made_calculator(place: str) -> Fixed:
    return Fixed("calculator", tool(calculator))


def made_python(place: str) -> Fixed:
    if refused := confinement.refusal():
        raise refused
    return Fixed("python", tool(python, slow=True))


# ---- texts ---------------------------------------------------------------------------------------------------------------


def made_search(place: str) -> Fixed:
    """`search:FOLDER`."""
    if not place:
        raise UserError("the tool 'search' needs texts: search:FOLDER, or search:FILE.txt")
    corpus = corpus_of(place)
    assert corpus is not None

    def search(query: str) -> str:
        """Looks something up in a collection of texts and gives the passages that fit best.

        Args:
            query: words to look for
        """
        return "\n\n".join(corpus.best(query, PASSAGES)) or "Nothing was found."

    return Fixed("search", tool(search, slow=len(corpus.passages) > 2000))


# ---- files ---------------------------------------------------------------------------------------------------------------


class Files:
    """A file system of the episode's own, in memory: what the task brings in `files` ({path: text}), else what lies in
    `folder`."""

    name = "files"

    def __init__(self, folder: str = "") -> None:
        self._given: dict[str, str] = {}
        if folder:
            root = Path(folder)
            if not root.is_dir():
                raise UserError(f"the tool 'files' begins with a folder; '{folder}' is none")
            try:
                self._given = {
                    path.relative_to(root).as_posix(): path.read_text("utf-8")
                    for path in sorted(root.rglob("*"))
                    if path.is_file()
                }
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"the folder '{folder}' cannot be read as text: {error}") from None

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        brought: Any = task.meta.get("files")
        held = dict(brought if isinstance(brought, dict) else self._given)

        def list_files() -> list[str]:
            """The paths of all files."""
            return sorted(held)

        def read_file(path: str) -> str:
            """The text of a file."""
            if path not in held:
                raise ToolError(f"there is no file '{path}'; there are {', '.join(sorted(held)) or 'none'}")
            return held[path]

        def write_file(path: str, text: str) -> str:
            """Writes a file, in the place of an earlier one of that path."""
            held[path] = text
            return f"{path} holds {len(text)} characters now"

        return [tool(list_files, keeps=True), tool(read_file, keeps=True), tool(write_file, keeps=True)]

    def close(self) -> None:
        """Nothing is held."""


# ---- a database ----------------------------------------------------------------------------------------------------------


class Sql:
    """A copy in memory, for each episode, of the database in `file`, or of what the task's `sql` (a script) makes."""

    name = "sql"

    def __init__(self, file: str = "") -> None:
        self._file: bytes | None = None
        if file:
            if not Path(file).is_file():
                raise UserError(f"the tool 'sql' reads a file of SQLite; there is no '{file}'")
            try:
                with contextlib.closing(
                    sqlite3.connect(f"file:{Path(file).resolve()}?mode=ro", uri=True)
                ) as d:
                    self._file = d.serialize()
                    _tables(d)
            except sqlite3.Error as error:
                raise UserError(f"'{file}' is no database of SQLite: {error}") from None

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        script = task.meta.get("sql")
        try:
            if isinstance(script, str):
                database.executescript(script)
            elif self._file is not None:
                database.deserialize(self._file)
            tables = _tables(database)
        except sqlite3.Error as error:
            raise UserError(f"the task's column 'sql' makes no database: {error}") from None
        _confine(database)

        def sql(query: str) -> str:
            """Runs one statement of SQL on the database and gives the rows."""
            return _rows(database, query)

        made = tool(sql, slow=True, keeps=True)
        about = f"{made.description} Tables: {tables}." if tables else made.description
        return [Tool("sql", about, made.parameters, made.run, True, True)]

    def close(self) -> None:
        """Databases of episodes end with them."""


def _tables(database: sqlite3.Connection) -> str:
    names = [
        r[0] for r in database.execute("select name from sqlite_master where type = 'table' order by rowid")
    ]
    columns = {n: [r[1] for r in database.execute(f'pragma table_info("{n}")')] for n in names}
    return ", ".join(f"{name}({', '.join(found)})" for name, found in columns.items())


def _confine(database: sqlite3.Connection) -> None:
    """No other file is opened, and neither the database nor a value outgrows its bound."""
    pages = SQL_BYTES // database.execute("pragma page_size").fetchone()[0]
    database.execute(f"pragma max_page_count = {pages}")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
    refused = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}

    def allowed(action: int, first: str | None, *rest: Any) -> int:
        if action in refused or (action == sqlite3.SQLITE_PRAGMA and first != "table_info"):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_DENY if rest and rest[0] == "load_extension" else sqlite3.SQLITE_OK

    database.set_authorizer(allowed)


def _rows(database: sqlite3.Connection, query: str) -> str:
    end = time.monotonic() + SQL_SECONDS
    database.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        cursor = database.execute(query)
        rows = cursor.fetchmany(ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        late = "it took too long" if str(error) == "interrupted" else str(error)
        raise ToolError(f"the statement failed: {late}") from None
    if cursor.description is None:
        return f"done; rows changed: {max(0, cursor.rowcount)}"
    head = " | ".join(column[0] for column in cursor.description)
    lines = [" | ".join("" if v is None else str(v) for v in row) for row in rows[:ROWS]]
    return "\n".join([head, *lines, *(["..."] if len(rows) > ROWS else [])])
