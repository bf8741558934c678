"""Your own tasks from a file: JSON lines, a JSON array, CSV or Parquet (`etude.tasks.rows`), with the columns of this
package or of others (`etude.tasks.columns`).

Fields: `prompt` (text, or a list of {"role", "content"}), `answer` (text or number), and, if wanted, `kind`,
`difficulty`, `reference`, `hints` (list of text), `check` (one of `CHECKS`). For a program, `answer`
is one that works, `function` the name it defines and `cases` a list of [arguments, result], arguments being a list.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks.answer import Answer
from etude.tasks.answer_kinds import KINDS, math_kind
from etude.tasks.check import Exact, Number
from etude.tasks.columns import gold_of, known, text_answer
from etude.tasks.extract import RULES, value
from etude.tasks.files import PARAMS, Listed
from etude.tasks.program import Program
from etude.tasks.rows import kind_name, rows
from etude.tasks.selftest import unmatched
from etude.tasks.spec import typed
from etude.types import Check, Message, Task

BY_KIND = {kind.replace(" ", "_"): kind for kind in KINDS if kind not in ("number", "math")}
CHECKS = ("exact", "number", "math", "program", *BY_KIND)
ROLES = ("system", "user", "assistant")
NAMED = 3  # lines that a note names


def source(path: str | Path, given: Mapping[str, Any] | None = None, called: str | None = None) -> Listed:
    """The file as a source; parameters: `etude.tasks.files.PARAMS`. Raises UserError naming file and line."""
    where = f"task file '{path}'"
    settings = {p.name: p.default for p in PARAMS} | typed(where, given or {}, PARAMS)
    name = called or Path(str(path).replace("\\", "/")).stem
    held: list[Task] | None = None
    notes: list[str] = []
    if settings["eval"]:
        held, notes = read(settings["eval"], settings, name, called is not None)
    tasks, said = read(path, settings, name, called is not None)
    whole = held is None and "eval_share" not in (given or {})
    return Listed(name, tasks, settings["eval_share"], held, notes=(*said, *notes), whole=whole)


def read(
    path: str | Path, settings: Mapping[str, Any], kind: str, fixed: bool = False
) -> tuple[list[Task], list[str]]:
    """All tasks of a file, duplicates included, and what a user should know of it. `kind`: for lines that name none
    (`fixed`: and for those whose data set names one). Raises UserError."""
    for what, rules, one in (("check", CHECKS, settings["check"]), ("rule", RULES, settings["extract"])):
        if one not in ("auto", *rules):
            raise UserError(f"task file '{path}': no {what} '{one}'{nearest(one, rules)}")
    tasks: list[Task] = []
    places: list[str] = []
    broken: list[str] = []
    for where, row in rows(path):
        task = _task(row, where, settings, kind, fixed)
        if fault := _unreadable(task):
            broken.append(f"{_line(where)} ({fault})")
            continue
        tasks.append(task)
        places.append(_line(where))
    notes = []
    if broken:
        left = f"{path}: {_rows(len(broken))} left out, because no tokenizer reads half a character: {_some(broken)}"
        if not tasks:
            raise UserError(left)
        notes.append(left)
    if wrong := unmatched(tasks):
        first = tasks[wrong[0][0]]
        named = _some([places[i] for i, _ in wrong])
        raise UserError(
            f"{path}: {_rows(len(wrong))} with a gold answer that its own check does not accept ({named}): "
            f"{wrong[0][1]} '{_short(first.answer or '')}'; mend the answer, or choose another check or extract"
        )
    notes.append(_census(path, tasks))
    long = [places[i] for i, t in enumerate(tasks) if _sprawls(t)]
    if long:
        notes.append(
            f"{path}: {_rows(len(long))} with an answer of several lines, which a reply must match word for word "
            f"({_some(long)}); if it holds a worked solution, name that 'reference' and the short answer 'answer'"
        )
    return tasks, notes


def _census(path: str | Path, tasks: list[Task]) -> str:
    """How the answers will be compared: how many tasks of each kind."""
    kinds = Counter(_compared(t.check) for t in tasks)
    return f"{path}: {len(tasks)} tasks: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}"


def _compared(check: Check) -> str:
    if isinstance(check, Answer):
        return check.asked
    return f"{type(check).__name__.lower()} (as set)" if not isinstance(check, Program) else "program"


def _sprawls(task: Task) -> bool:
    several = len((task.answer or "").strip().splitlines()) > 1
    return several and isinstance(task.check, Answer) and task.check.asked == "text"


def _rows(n: int) -> str:
    return f"{n} row{'s' if n > 1 else ''}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _line(where: str) -> str:
    return where.rsplit(", ", 1)[1]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def _unreadable(task: Task) -> str:
    """Which field holds half a character (a lone surrogate), or ""."""
    texts = {
        "prompt": "".join(m.content for m in task.prompt),
        "answer": task.answer or "",
        "reference": task.reference or "",
        "hints": "".join(task.hints),
        "kind": task.kind,
    }
    return next((name for name, text in texts.items() if not _encodes(text)), "")


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _task(row: dict[str, Any], where: str, settings: Mapping[str, Any], kind: str, fixed: bool) -> Task:
    fields, further = known(row, where)
    name = fields.get("check", settings["check"])
    if name != "auto" and name not in CHECKS:
        raise UserError(f"{where}: no check '{name}'{nearest(str(name), CHECKS)}")
    answer, reference = text_answer(fields["answer"], where), fields.get("reference")
    if name not in ("program", "exact", "text"):
        answer, worked = gold_of(answer)
        reference = worked if reference is None else reference
    hints = fields.get("hints", [])
    if not isinstance(hints, list) or not all(isinstance(h, str) for h in hints):
        raise UserError(f"{where}: 'hints' must be a list of texts, from vague to telling")
    for field, text in (("kind", fields.get("kind", "")), ("reference", reference or "")):
        if not isinstance(text, str):
            raise UserError(f"{where}: '{field}' must be text, not {kind_name(text)}")
    given = fields.get("kind") if "kind" in row or not fixed else None
    return Task(
        prompt=_prompt(fields["prompt"], where),
        check=_check(name, answer, where, settings, fields),
        kind=given or kind,
        difficulty=_difficulty(fields.get("difficulty", 0.0), where),
        answer=answer,
        reference=reference,
        hints=tuple(hints),
        meta={"source": where.rsplit(",", 1)[0], **further, "feedback": settings["feedback"]},
    )


def _difficulty(given: Any, where: str) -> float:
    try:
        if not isinstance(given, bool) and isinstance(given, (int, float)) and math.isfinite(float(given)):
            return float(given)
    except OverflowError:
        given = math.inf
    raise UserError(f"{where}: 'difficulty' must be a finite number, not {given!r:.40}")


def _prompt(prompt: Any, where: str) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError(f"{where}: 'prompt' is empty")
        return (Message("user", prompt),)
    said = [_plain(m) for m in prompt] if isinstance(prompt, list) else []
    good = all(
        isinstance(m, dict)
        and set(m) == {"role", "content"}
        and m["role"] in ROLES
        and isinstance(m["content"], str)
        for m in said
    )
    if not good or not said:
        raise UserError(
            f"{where}: 'prompt' must be text or a list of messages, each with the role system, user or "
            "assistant and a content"
        )
    if said[-1]["role"] != "user":
        raise UserError(f"{where}: the last message of 'prompt' must have the role user")
    if not said[-1]["content"].strip():
        raise UserError(f"{where}: 'prompt' is empty")
    return tuple(Message(m["role"], m["content"]) for m in said)


def _plain(message: Any) -> Any:
    """A message without the fields that it leaves empty, as tables write them."""
    if not isinstance(message, dict):
        return message
    return {k: v for k, v in message.items() if k in ("role", "content") or v not in (None, [], {})}


def _check(name: Any, answer: str, where: str, settings: Mapping[str, Any], row: Mapping[str, Any]) -> Check:
    rule, feedback = settings["extract"], settings["feedback"]
    try:
        if name == "program":
            return Program(*_cases(row, where), answer, feedback)
        if name == "exact":
            return Exact(answer, "whole" if rule == "auto" else rule, feedback)
        if name == "number" and value(answer) is not None:
            return Number(answer, "last_number" if rule == "auto" else rule, feedback)
        kind = math_kind(answer) if name == "math" else BY_KIND.get(name, name)
        return Answer(answer, extract=rule, feedback=feedback, kind=kind)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


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
