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
from etude.tasks.check import Unjudged
from etude.tasks.choices import with_choices
from etude.tasks.columns import gold_of, known, renamed, text_answer
from etude.tasks.extract import RULES
from etude.tasks.files import COLUMNS, PARAMS, Listed
from etude.tasks.locate import find, stem
from etude.tasks.pairs import CHOSEN, ITEM, REJECTED, holds_pair, pairs_of_row
from etude.tasks.row_checks import CHECKS, NEEDS, WORDED, check_of, compared
from etude.tasks.rows import kind_name, rows
from etude.tasks.selftest import unmatched
from etude.tasks.source import digest
from etude.tasks.spec import typed
from etude.tasks.traces import TRACE, traced
from etude.tasks.unit_tests import with_tests
from etude.types import Message, Task

ROLES = ("system", "user", "assistant")
NAMED = 3  # lines that a note names


def source(path: str | Path, given: Mapping[str, Any] | None = None, called: str | None = None) -> Listed:
    """The file as a source; parameters: `etude.tasks.files.PARAMS`. Raises UserError naming file and line."""
    where = f"task file '{path}'"
    settings = {p.name: p.default for p in PARAMS} | typed(where, given or {}, PARAMS)
    name = called or stem(path)
    held: list[Task] | None = None
    notes: list[str] = []
    if settings["eval"]:
        place, other = path, {**settings, "split": settings["eval"]}
        if not (
            settings["split"] and settings["eval"] in find(path, settings["split"], settings["config"]).splits
        ):
            place, other = settings["eval"], {**settings, "split": "", "config": ""}
        held, notes = read(place, other, name, called is not None)
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
    came: Counter[tuple[str, str]] = Counter()
    named = {field: column for field in COLUMNS if (column := settings[f"columns.{field}"])}
    for where, row in with_choices(
        [(w, renamed(r, named, w)) for w, r in rows(path, settings["split"], settings["config"])]
    ):
        for task, columns in _tasks(row, where, settings, kind, fixed):
            came[columns] += 1
            if fault := _unreadable(task):
                broken.append(f"{_line(where)} ({fault})")
                continue
            tasks.append(task)
            places.append(_line(where))
    if not tasks and not broken:
        raise UserError(f"{path}: no row prefers one answer to another")
    notes = []
    if broken:
        left = f"{path}: {_rows(len(broken))} left out, because no tokenizer reads half a character: {_some(broken)}"
        if not tasks:
            raise UserError(left)
        notes.append(left)
    if wrong := unmatched(tasks):
        first = tasks[wrong[0][0]]
        lines = _some([places[i] for i, _ in wrong])
        raise UserError(
            f"{path}: {_rows(len(wrong))} with a gold answer that its own check does not accept ({lines}): "
            f"{wrong[0][1]} '{_short(first.answer or '')}'; mend the answer, or choose another check or extract"
        )
    notes.append(_census(path, tasks, came))
    long = [places[i] for i, t in enumerate(tasks) if _sprawls(t)]
    if long:
        notes.append(
            f"{path}: {_rows(len(long))} with an answer of several lines, which a reply must match word for word "
            f"({_some(long)}); if it holds a worked solution, name that 'reference' and the short answer 'answer'"
        )
    return tasks, notes


def _census(path: str | Path, tasks: list[Task], came: Counter[tuple[str, str]]) -> str:
    """What was understood: the columns, and how the answers will be compared."""
    kinds = Counter(compared(t.check) for t in tasks)
    said = f"{path}: {len(tasks)} tasks: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}"
    if called := sum(TRACE in t.meta for t in tasks):
        said = f"{said}; {called} demonstrated by a trace that calls tools"
    others = {columns for columns in came if columns != ("prompt", "answer")}
    read = "; ".join(f"prompt from '{p}', answer from '{a}'" for p, a in sorted(others))
    return f"{said} ({read})" if read else said


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


def _tasks(
    row: dict[str, Any], where: str, settings: Mapping[str, Any], kind: str, fixed: bool
) -> list[tuple[Task, tuple[str, str]]]:
    """The task of a row; of a row with answers of which one is preferred, a task for each pair."""
    wanted = settings["check"] == "pairs"
    if wanted and not holds_pair(row, answered=True):
        held = ", ".join(list(row)[:6]) or "nothing"
        raise UserError(
            f"{where} holds no pair: 'chosen' and 'rejected' (docs/preferences.md has further forms); it holds {held}"
        )
    if not wanted and not holds_pair(row):
        return [_task(with_tests(row, where) or row, where, settings, kind, fixed)]
    own = row.get("kind", row.get("subset", row.get("category")))
    named = own if isinstance(own, str) and own and ("kind" in row or not fixed) else kind
    found = []
    for pair in pairs_of_row(row, where):
        prompt = _prompt(pair.pop("prompt"), where)
        key = digest([pair.get(CHOSEN), pair.get(REJECTED)])
        what = "pairs of answers" if CHOSEN in pair and REJECTED in pair else "labelled answers"
        meta = {"source": where.rsplit(",", 1)[0], **pair, ITEM: where, "environment_key": key}
        task = Task(prompt, Unjudged(what), kind=named, reference=pair.get(CHOSEN), meta=meta)
        found.append((task, ("prompt", "answer")))
    return found


def _task(
    row: dict[str, Any], where: str, settings: Mapping[str, Any], kind: str, fixed: bool
) -> tuple[Task, tuple[str, str]]:
    row, trace = traced(row, where)
    name = row.get("check", settings["check"])
    fields, further, came = known({"answer": "none", **row} if name == "none" else row, where)
    if name != "auto" and name not in CHECKS:
        raise UserError(f"{where}: no check '{name}'{nearest(str(name), CHECKS)}")
    answer: str | None
    answer, reference = text_answer(fields["answer"], where), fields.get("reference")
    if name == "none":
        answer, came = None, ("prompt", "answer")
    elif name not in WORDED:
        answer, worked = gold_of(answer)
        reference = worked if reference is None else reference
    hints = fields.get("hints", [])
    if not isinstance(hints, list) or not all(isinstance(h, str) for h in hints):
        raise UserError(f"{where}: 'hints' must be a list of texts, from vague to telling")
    for field, text in (("kind", fields.get("kind", "")), ("reference", reference or "")):
        if not isinstance(text, str):
            raise UserError(f"{where}: '{field}' must be text, not {kind_name(text)}")
    given = fields.get("kind") if "kind" in row or not fixed else None
    further = {n: v for n, v in further.items() if n not in NEEDS.get(name, ())}
    if trace is not None:
        further = {"calls": trace.calls, **further, TRACE: trace, "environment_key": digest(repr(trace))}
    task = Task(
        prompt=_prompt(fields["prompt"], where),
        check=Unjudged() if answer is None else check_of(name, answer, where, settings, row),
        kind=given or kind,
        difficulty=_difficulty(fields.get("difficulty", 0.0), where),
        answer=answer,
        reference=reference,
        hints=tuple(hints),
        meta={"source": where.rsplit(",", 1)[0], **further, "feedback": settings["feedback"]},
    )
    return task, came


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
    said = message.get("content")
    if isinstance(said, list) and said:  # OpenAI's parts of a message
        texts = [p.get("text") for p in said if isinstance(p, dict) and p.get("type") == "text"]
        written = [t for t in texts if isinstance(t, str)]
        if len(written) == len(said):
            message = {**message, "content": "".join(written)}
    return {k: v for k, v in message.items() if k in ("role", "content") or v not in (None, [], {})}
