"""Answers that are judged by more than a gold text: a pattern, a JSON schema, the result of a query, the output of a script."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from etude.errors import UserError
from etude.tasks import outcomes, sandbox
from etude.tasks.check import UNARY, AnswerCheck
from etude.tasks.extract import peel
from etude.types import Verdict

_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)```", re.DOTALL)
WORK = 30_000  # thousands of instructions that any query may take: about two seconds
LARGEST_VALUE = 1 << 20  # bytes
DIGITS = 10  # significant digits to which real numbers of two results agree


def fenced(answer: str) -> str:
    """The last code block, or all of it."""
    blocks = _FENCE.findall(answer)
    return (blocks[-1] if blocks else answer).strip()


@dataclass(frozen=True)
class Pattern(AnswerCheck):
    """The answer matches a regular expression from end to end. `gold`: an answer that does.

    A pattern can take for ever on a hostile text, so it is matched in a process of its own under a deadline."""

    pattern: str = ""
    isolated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(
                f"regex check: the pattern '{self.pattern:.60}' cannot be read: {error}"
            ) from None

    def score(self, found: str) -> float:
        """1 where the pattern is all of the answer."""
        tried = (found,) if self.strict else (found, found.strip(), peel(found))
        return float(any(re.fullmatch(self.pattern, text, re.DOTALL) for text in tried))

    def hint(self, found: str) -> str:
        """Names the pattern."""
        return f"{UNARY} The answer must match {self.pattern}."


@dataclass(frozen=True)
class Schema(AnswerCheck):
    """The answer is JSON that a schema accepts (library `jsonschema`). `gold`: an answer that is."""

    schema: dict[str, Any] = field(default_factory=dict)
    isolated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prepare()
        import jsonschema

        try:
            jsonschema.validators.validator_for(self.schema).check_schema(self.schema)
        except jsonschema.SchemaError as error:
            raise UserError(f"json_schema check: the schema cannot be read: {error.message}") from None

    def prepare(self) -> None:
        """Imports what judging needs. Raises UserError where it is not installed."""
        try:
            import jsonschema  # noqa: F401
        except ImportError:
            raise UserError(
                "the check json_schema needs the package jsonschema: pip install 'etude[checks]'"
            ) from None

    def __call__(self, answer: str) -> Verdict:
        """Judges the JSON in `answer`."""
        import jsonschema

        text = answer if self.strict else fenced(answer)
        try:
            value = json.loads(text)
        except ValueError as error:
            return self.failed(f"{UNARY} The answer is not JSON: {error}.")
        fault = next(
            iter(jsonschema.validators.validator_for(self.schema)(self.schema).iter_errors(value)), None
        )
        if fault is None:
            return Verdict(1.0, True)
        return self.failed(f"{UNARY} At {fault.json_path}: {fault.message:.200}.")


@dataclass(frozen=True)
class Query(AnswerCheck):
    """The answer is an SQL query (SQLite) whose result is the gold query's, in its order where the gold orders.

    `setup`: statements that make the tables, or `database`: a file, opened for reading only. The answer may read and
    compute, nothing else; it runs in a process of its own, and one that takes too much work is wrong. Real numbers agree to ten digits."""

    setup: str = ""
    database: str = ""
    isolated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.database and not Path(self.database).is_file():
            raise UserError(f"sql check: there is no database '{self.database}'")

    def __call__(self, answer: str) -> Verdict:
        """Judges the query in `answer`. Raises sqlite3.Error where the gold query itself fails."""
        wanted, work = self._rows(self.gold)
        try:
            rows, _ = self._rows(answer.strip() if self.strict else fenced(answer), len(wanted) + 1, work)
        except (sqlite3.Error, sqlite3.Warning) as error:
            return self.failed(f"{UNARY} The query fails: {error}.")
        ordered = re.search(r"\border\s+by\b[^()]*$", self.gold, re.IGNORECASE)
        if rows == wanted or (not ordered and Counter(rows) == Counter(wanted)):
            return Verdict(1.0, True)
        return self.failed(
            f"{UNARY} The query gives {len(rows) if len(rows) <= len(wanted) else 'more'} rows where {len(wanted)} are right, "
            "or other values."
        )

    def _rows(self, query: str, most: int = -1, work: int = 0) -> tuple[list[tuple[Any, ...]], int]:
        """The result, and what it took in thousands of SQLite's instructions. With `most`, of a query that the model wrote:
        that many rows at most, and an sqlite3.Error where it makes a huge value or takes far more than `work`."""
        taken = 0

        def count() -> bool:
            nonlocal taken
            taken += 1
            return most >= 0 and taken > max(WORK, 10 * work)

        with contextlib.closing(self._open()) as connection:
            connection.set_authorizer(_reading)
            connection.set_progress_handler(count, 1000)
            if most >= 0:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
            cursor = connection.execute(query.rstrip().rstrip(";"))
            found = cursor.fetchall() if most < 0 else cursor.fetchmany(most)
        return [tuple(_rounded(value) for value in row) for row in found], taken

    def _open(self) -> sqlite3.Connection:
        if self.database:
            return sqlite3.connect(f"{Path(self.database).resolve().as_uri()}?mode=ro", uri=True)
        connection = sqlite3.connect(":memory:")
        connection.executescript(self.setup)
        return connection


def _reading(action: int, *_: Any) -> int:
    """SQLite's authorizer: a query that reads, calls functions and recurses; no other file, no pragma, no change."""
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        near = float(f"{value:.{DIGITS}g}")
        return int(near) if near.is_integer() and abs(near) < 2**53 else near
    return value


@dataclass(frozen=True)
class Script:
    """The answer is a Python script that prints, for every input, what is expected: `cases` are (input, output), compared
    line by line without trailing white space. It runs in the sandbox (`etude.tasks.sandbox`), a process for each
    input. `gold`: a script that is right."""

    cases: tuple[tuple[str, str], ...]
    gold: str = ""
    feedback: str = "unary"
    strict: bool = False
    blocking: ClassVar[bool] = True
    runs_programs: ClassVar[bool] = True

    def __call__(self, answer: str) -> Verdict:
        """Judges the script in `answer`."""
        code = fenced(answer)
        for given, wanted in self.cases:
            with sandbox.shared().program() as program:
                done = program.main(code, given)
            fault = _output_fault(done, given, wanted)
            if fault:
                said = {
                    "none": "",
                    "unary": UNARY,
                    "hint": fault,
                    "full": f"{fault} A script that works:\n{self.gold}",
                }
                return Verdict(0.0, False, said[self.feedback])
        return Verdict(1.0, True)


def _output_fault(done: outcomes.Printed | outcomes.Ended, given: str, wanted: str) -> str:
    if isinstance(done, outcomes.Ended):
        return f"On the input {given[:80]!r} the script {done}."
    if done.error is not None:
        return f"On the input {given[:80]!r} the script {done.error}."
    mine, right = _lines(done.text), _lines(wanted)
    if mine == right:
        return ""
    return (
        f"On the input {given[:80]!r} the script prints {done.text[:80]!r}; it should print {wanted[:80]!r}."
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
