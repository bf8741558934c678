"""Tasks from a file with one JSON object a line.

Fields: `prompt` (text, or a list of {"role", "content"}), `answer` (text or number), and, if wanted, `kind`,
`difficulty`, `reference`, `hints` (list of text), `check` ("exact" | "number" | "math" | "program"). For a program, `answer`
is one that works, `function` the name it defines and `cases` a list of [arguments, result], arguments being a list.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks.check import Exact, Math, Number
from etude.tasks.extract import RULES, value
from etude.tasks.files import PARAMS, Listed
from etude.tasks.program import Program
from etude.tasks.spec import typed
from etude.types import Check, Message, Task

CHECKS = ("exact", "number", "math", "program")
FIELDS = ("prompt", "answer", "kind", "difficulty", "reference", "hints", "check", "function", "cases")
ROLES = ("system", "user", "assistant")


def source(path: str | Path, given: Mapping[str, Any] | None = None, called: str | None = None) -> Listed:
    """The file as a source; parameters: `etude.tasks.files.PARAMS`. Raises UserError naming file and line."""
    where = f"task file '{path}'"
    settings = {p.name: p.default for p in PARAMS} | typed(where, given or {}, PARAMS)
    name = called or Path(path).stem
    held = read(settings["eval"], settings, name) if settings["eval"] else None
    return Listed(name, read(path, settings, name), settings["eval_share"], held)


def read(path: str | Path, settings: Mapping[str, Any], kind: str) -> list[Task]:
    """All tasks of a file, duplicates included. `kind`: for lines that name none. Raises UserError."""
    if settings["check"] not in ("auto", *CHECKS):
        raise UserError(
            f"task file '{path}': no check '{settings['check']}'{nearest(settings['check'], CHECKS)}"
        )
    if settings["extract"] not in ("auto", *RULES):
        raise UserError(
            f"task file '{path}': no rule '{settings['extract']}'{nearest(settings['extract'], RULES)}"
        )
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"task file '{path}' is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"task file '{path}' cannot be read: {error.strerror}") from None
    # Only line feeds end a line: splitlines() would also cut at characters that JSON text may hold.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"task file '{path}' is empty; each line must hold an object with prompt and answer")
    return [_task(line, f"{path}, line {i}", settings, kind) for i, line in lines]


def _task(line: str, where: str, settings: Mapping[str, Any], kind: str) -> Task:
    row = _object(line, where)
    prompt = _prompt(row["prompt"], where)
    answer = row["answer"]
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise UserError(f"{where}: 'answer' must be text or a number, not {_name(answer)}")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise UserError(f"{where}: 'answer' is {answer}; it must be finite")
    answer = str(answer)
    if not answer.strip():
        raise UserError(f"{where}: 'answer' is empty")
    difficulty = row.get("difficulty", 0.0)
    if (
        isinstance(difficulty, bool)
        or not isinstance(difficulty, (int, float))
        or not math.isfinite(difficulty)
    ):
        raise UserError(f"{where}: 'difficulty' must be a finite number, not {difficulty!r}")
    hints = row.get("hints", [])
    if not isinstance(hints, list) or not all(isinstance(h, str) for h in hints):
        raise UserError(f"{where}: 'hints' must be a list of texts, from vague to telling")
    for field in ("kind", "reference"):
        if field in row and not isinstance(row[field], str):
            raise UserError(f"{where}: '{field}' must be text, not {_name(row[field])}")
    return Task(
        prompt=prompt,
        check=_check(row.get("check", settings["check"]), answer, where, settings, row),
        kind=row.get("kind") or kind,
        difficulty=float(difficulty),
        answer=answer,
        reference=row.get("reference"),
        hints=tuple(hints),
        meta={
            **{name: value for name, value in row.items() if name not in FIELDS},  # for the user's reward
            "source": where.rsplit(",", 1)[0],
            "feedback": settings["feedback"],
        },
    )


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise UserError(f"{where} is not JSON: {reason}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} must hold an object with prompt and answer, not {_name(row)}")
    for field in row:
        if field not in FIELDS and difflib.get_close_matches(field, FIELDS, n=1, cutoff=0.85):
            raise UserError(f"{where}: unknown field '{field}'{nearest(field, FIELDS)}")  # misspelt
    for field in ("prompt", "answer"):
        if field not in row:
            raise UserError(f"{where}: the field '{field}' is missing")
    return row


def _prompt(prompt: Any, where: str) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError(f"{where}: 'prompt' is empty")
        return (Message("user", prompt),)
    good = isinstance(prompt, list) and all(
        isinstance(m, dict)
        and set(m) == {"role", "content"}
        and m["role"] in ROLES
        and isinstance(m["content"], str)
        for m in prompt
    )
    if not good or not prompt:
        raise UserError(
            f"{where}: 'prompt' must be text or a list of messages, each with the role system, user or "
            "assistant and a content"
        )
    if prompt[-1]["role"] != "user":
        raise UserError(f"{where}: the last message of 'prompt' must have the role user")
    return tuple(Message(m["role"], m["content"]) for m in prompt)


def _check(name: Any, answer: str, where: str, settings: Mapping[str, Any], row: Mapping[str, Any]) -> Check:
    number = value(answer) is not None
    if name == "auto":
        name = "number" if number else "exact"
    rule = settings["extract"]
    try:
        if name == "number":
            return Number(answer, "last_number" if rule == "auto" else rule, settings["feedback"])
        if name == "exact":
            return Exact(answer, "whole" if rule == "auto" else rule, settings["feedback"])
        if name == "math":
            return Math(answer, "whole" if rule == "auto" else rule, settings["feedback"])
        if name == "program":
            return Program(*_cases(row, where), answer, settings["feedback"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    raise UserError(f"{where}: no check '{name}'{nearest(str(name), CHECKS)}")


def _cases(row: Mapping[str, Any], where: str) -> tuple[str, tuple[Any, ...]]:
    """The function's name and the calls that it is judged by."""
    function, cases = row.get("function"), row.get("cases")
    if not isinstance(function, str) or not function.isidentifier():
        raise UserError(f"{where}: a program needs 'function', the name that it defines")
    good = isinstance(cases, list) and all(
        isinstance(c, list) and len(c) == 2 and isinstance(c[0], list) for c in cases
    )
    if not good or not cases:
        raise UserError(
            f"{where}: a program needs 'cases', a list of [arguments, result] such as [[1, 2], 3]"
        )
    return function, tuple((tuple(arguments), result) for arguments, result in cases)


def _name(value: Any) -> str:
    if value is None:
        return "null"
    names = {"bool": "true or false", "list": "a list", "dict": "an object", "str": "text"}
    return names.get(type(value).__name__, "a number")
