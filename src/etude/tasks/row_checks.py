"""The check that a row of a task file asks for, made from the row's columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from etude.errors import UserError
from etude.tasks.answer import Answer
from etude.tasks.answer_kinds import KINDS, math_kind
from etude.tasks.check import Exact, Number, Unjudged
from etude.tasks.extract import value
from etude.tasks.program import Program
from etude.tasks.rows import kind_name
from etude.tasks.structured import Pattern, Query, Schema, Script
from etude.tasks.unit_tests import UnitTests
from etude.types import Check

BY_KIND = {kind.replace(" ", "_"): kind for kind in KINDS if kind not in ("number", "math")}
NEEDS: Mapping[str, tuple[str, ...]] = {  # the columns that a check reads beside `answer`
    "program": ("function", "cases"),
    "tests": ("function", "tests", "before"),
    "output": ("inputs", "outputs"),
    "sql": ("setup", "database"),
    "json_schema": ("schema",),
    "regex": ("pattern",),
}
CHECKS = ("exact", "number", "math", *NEEDS, *BY_KIND, "none", "pairs")
WORDED = ("program", "tests", "output", "sql", "json_schema", "regex", "exact", "text")
"""Checks whose answer is taken as it is written, never cut down to a short gold."""

NAMES = {
    "Program": "program",
    "UnitTests": "unit tests",
    "Script": "output of a script",
    "Query": "SQL result",
    "Schema": "JSON schema",
    "Pattern": "regular expression",
}  # of checks, for people

Row = Mapping[str, Any]


def compared(check: Check) -> str:
    """How a check compares answers, for people."""
    if isinstance(check, Answer | Unjudged):
        return check.asked
    return NAMES.get(type(check).__name__) or f"{type(check).__name__.lower()} (as set)"


def check_of(name: Any, answer: str, where: str, settings: Row, row: Row) -> Check:
    """The check called `name` ("auto": by the kind of the answer). Raises UserError naming `where` for a column that it
    needs and the row lacks."""
    rule, feedback = settings["extract"], settings["feedback"]
    try:
        if name in MADE:
            return MADE[name](answer, row, feedback)
        if name == "exact":
            return Exact(answer, "whole" if rule == "auto" else rule, feedback)
        if name == "number" and value(answer) is not None:
            return Number(answer, "last_number" if rule == "auto" else rule, feedback)
        kind = math_kind(answer) if name == "math" else BY_KIND.get(name, name)
        return Answer(answer, extract=rule, feedback=feedback, kind=kind)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _program(answer: str, row: Row, feedback: str) -> Check:
    cases = row.get("cases")
    good = isinstance(cases, list) and all(
        isinstance(c, list) and len(c) == 2 and isinstance(c[0], list) for c in cases
    )
    if not good or not cases:
        raise UserError("a program needs 'cases', a list of [arguments, result] such as [[1, 2], 3]")
    return Program(_function(row), tuple((tuple(a), result) for a, result in cases), answer, feedback)


def _tests(answer: str, row: Row, feedback: str) -> Check:
    tests = row.get("tests")
    if isinstance(tests, list) and all(isinstance(t, str) for t in tests):
        tests = "\n".join(tests)
    if not isinstance(tests, str):
        raise UserError("unit tests need 'tests', Python source (or a list of it) such as assert f(1) == 2")
    return UnitTests(_function(row), tests, str(row.get("before") or ""), answer, feedback)


def _function(row: Row) -> str:
    function = row.get("function")
    if not isinstance(function, str) or not function.isidentifier():
        raise UserError("a program needs 'function', the name that it defines")
    return function


def _output(answer: str, row: Row, feedback: str) -> Check:
    given, wanted = row.get("inputs"), row.get("outputs")
    if not (isinstance(given, list) and isinstance(wanted, list) and 0 < len(given) == len(wanted)):
        raise UserError(
            "a script needs 'inputs' and 'outputs', lists of equal length: what it reads and prints"
        )
    return Script(tuple(zip(map(str, given), map(str, wanted), strict=True)), answer, feedback)


def _sql(answer: str, row: Row, feedback: str) -> Check:
    setup, database = row.get("setup", ""), row.get("database", "")
    if not isinstance(setup, str) or not isinstance(database, str) or bool(setup) == bool(database):
        raise UserError("an sql task needs 'setup' (statements that make the tables) or 'database' (a file)")
    return Query(answer, feedback=feedback, setup=setup, database=database)


def _json_schema(answer: str, row: Row, feedback: str) -> Check:
    schema = row.get("schema")
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError:
            raise UserError("'schema' is not JSON") from None
    if not isinstance(schema, Mapping):
        raise UserError(f"a json_schema task needs 'schema', an object, not {kind_name(schema)}")
    return Schema(answer, feedback=feedback, schema=dict(schema))


def _regex(answer: str, row: Row, feedback: str) -> Check:
    if not isinstance(row.get("pattern"), str):
        raise UserError("a regex task needs 'pattern', beside 'answer', an example that it matches")
    return Pattern(answer, feedback=feedback, pattern=row["pattern"])


MADE: Mapping[str, Callable[[str, Row, str], Check]] = {
    "program": _program,
    "tests": _tests,
    "output": _output,
    "sql": _sql,
    "json_schema": _json_schema,
    "regex": _regex,
}
