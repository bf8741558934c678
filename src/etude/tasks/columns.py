"""What the columns of other tools' files mean: question/answer, problem/solution, instruction/output, messages, TRL's
conversations, verl's reward_model. Columns that mean nothing here are kept for the user's reward (`Task.meta`).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks.answer_places import BOX, LEAD, boxes
from etude.tasks.arithmetic import evaluate
from etude.tasks.extract import tags
from etude.tasks.quantity import quantity
from etude.tasks.rows import kind_name

FIELDS = ("prompt", "answer", "kind", "difficulty", "reference", "hints", "check")
PROMPTS = ("prompt", "question", "problem", "instruction", "query")
ANSWERS = (
    *("answer", "ground_truth", "final_answer", "expected_answer", "gold", "solution", "output", "response"),
    *("completion", "target", "label"),
)
CERTAIN = ANSWERS[:5]  # beside messages: what the last of them says is then a worked solution
UNCLEAR = ("output", "response", "completion", "target", "label")  # any of which may be the answer
LAST = "the last message"
OWN = (
    "feedback",
    "steps",
    "parent",
    "environment_key",
    "written",
    "running",
    "quality",
    "start",
    "entropy",
    "trace",
)  # of `Task.meta`, read by etude itself

Row = dict[str, Any]


def renamed(row: Mapping[str, Any], names: Mapping[str, str], where: str) -> Row:
    """The row with the columns that the user named under the names of their fields. Raises UserError for one that the row
    does not have."""
    for field, column in names.items():
        if column not in row:
            held = ", ".join(list(row)[:8])
            raise UserError(f"{where}: there is no column '{column}' (columns.{field}); the row holds {held}")
    taken = set(names.values())
    kept = {n: v for n, v in row.items() if n not in taken and n not in names}
    return {**kept, **{field: row[column] for field, column in names.items()}}


def known(row: Mapping[str, Any], where: str) -> tuple[Row, Row, tuple[str, str]]:
    """The fields of a task that a row holds under whatever name, all further columns, and the columns that the prompt and
    the answer came from. Raises UserError where a prompt or an answer is missing, two columns could be one, or a
    field is misspelt."""
    row = _lower(row)
    found = {name: row[name] for name in FIELDS if name in row}
    used = set(found)
    _misspelt(row, where)
    prompt, column = _prompt(row, where)
    used.add(column)
    if column == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        prompt = f"{prompt}\n\n{row['input']}"
        used.add("input")
    if column == "messages" and prompt and prompt[-1].get("role") == "assistant":
        *prompt, last = prompt
        if any(name in row for name in (*CERTAIN, "reward_model")):
            found.setdefault("reference", last["content"])
        else:
            row = {**row, LAST: last["content"]}
    found["prompt"] = prompt
    found["answer"], gold = _answer(row, where)
    came = (f"{column} + input" if "input" in used else column, gold)
    column = gold
    used.add(column)
    if "reference" not in found and column != "solution" and isinstance(row.get("solution"), str):
        found["reference"] = row["solution"]
        used.add("solution")
    extra = row.get("extra_info")
    if "reference" not in found and isinstance(extra, Mapping) and isinstance(extra.get("answer"), str):
        found["reference"] = extra["answer"]
    if "kind" not in found and "reward_model" in row and isinstance(row.get("data_source"), str):
        found["kind"] = row["data_source"]
    further = {(f"{n}_" if n in OWN else n): v for n, v in row.items() if n not in used}
    return found, further, came


def _lower(row: Mapping[str, Any]) -> Row:
    """The row with "Problem" and "Answer" as "problem" and "answer", where it has no such columns."""
    meant = (*FIELDS, *PROMPTS, *ANSWERS)
    new = {
        n: n.casefold() for n in row if n not in meant and n.casefold() in meant and n.casefold() not in row
    }
    return {new.get(n, n): v for n, v in row.items()}


def _misspelt(row: Mapping[str, Any], where: str) -> None:
    """A column that is nearly, but not, the name of a field; plurals are columns of other tools."""
    for name in row:
        close = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.85) if name not in FIELDS else []
        if close and name.rstrip("s") != close[0].rstrip("s"):
            raise UserError(f"{where}: unknown field '{name}'{nearest(name, FIELDS)}")


def _prompt(row: Mapping[str, Any], where: str) -> tuple[Any, str]:
    for name in PROMPTS:
        if name in row:
            _one_of(name, PROMPTS, row, "prompt", where)
            return row[name], name
    if "messages" in row:
        said = row["messages"]
        if not isinstance(said, list) or not all(isinstance(m, dict) and "content" in m for m in said):
            raise UserError(f"{where}: 'messages' must be a list of messages, each with a role and a content")
        return said, "messages"
    raise UserError(_missing("prompt", (*PROMPTS[1:], "messages"), row, where))


def _answer(row: Mapping[str, Any], where: str) -> tuple[Any, str]:
    for name in ("answer", LAST):
        if name in row:
            return row[name], name
    given = row.get("reward_model")
    if isinstance(given, Mapping) and "ground_truth" in given:
        gold = given["ground_truth"]
        return (gold[0] if isinstance(gold, list) and len(gold) == 1 else gold), "answer"
    for name in ANSWERS:
        if name in row:
            _one_of(name, UNCLEAR, row, "answer", where)
            gold = row[name]
            if isinstance(gold, list) and len(gold) == 1 and isinstance(gold[0], Mapping):
                gold = gold[0].get("content")  # TRL: a completion as messages
            return gold, name
    raise UserError(_missing("answer", ANSWERS[1:], row, where))


def _one_of(name: str, names: tuple[str, ...], row: Mapping[str, Any], field: str, where: str) -> None:
    """UserError where a row has two columns that could be the field."""
    both = [n for n in names if isinstance(row.get(n), str) and row[n].strip()] if name != field else []
    if name in both and len(both) > 1:
        raise UserError(
            f"{where}: the {field} could be {' or '.join(repr(n) for n in both)}; say which: "
            f"'{where.rsplit(', ', 1)[0]}:columns.{field}={both[0]}'"
        )


def _missing(field: str, others: tuple[str, ...], row: Mapping[str, Any], where: str) -> str:
    held = ", ".join(list(row)[:6]) or "nothing"
    return f"{where}: the field '{field}' is missing; it may also be called {', '.join(others)}; the row holds {held}"


# ---- golds that are worked solutions -----------------------------------------------------------------

_MARK = re.compile(r"^\s*####\s*(\S.*?)\s*$", re.MULTILINE)
_LAST = re.compile(rf"(?:.*\b)?{LEAD.pattern}(\S.*?)\s*\.?\s*$", re.IGNORECASE)


def gold_of(answer: str) -> tuple[str, str | None]:
    """The gold answer in `answer`, and the worked solution that it was taken from (None: the answer is all of it):
    what stands after a final "####", in the last box or between <answer> tags, after "the answer is" on the last of
    several lines, or to the right of an arithmetic equation that holds."""
    lines = [line for line in answer.splitlines() if line.strip()]
    marked = _MARK.findall(lines[-1]) if lines else []
    if marked:
        return marked[-1], answer
    inside = boxes(answer) if BOX.search(answer) else tags(answer)
    if inside and inside[-1].strip():
        return inside[-1].strip(), None if _only(answer) else answer
    if len(lines) > 1 and (found := _LAST.fullmatch(lines[-1])):
        return found[1], answer
    left, equals, right = answer.partition("=")
    worked = len(lines) == 1 and bool(equals) and re.search(r"\d\s*[-+*/×÷]", left)
    if worked and (number := quantity(right)) is not None and evaluate(left) == number.value:
        return right.strip(), answer
    return answer, None


def _only(answer: str) -> bool:
    """Whether the answer is nothing but one box or one tag."""
    return bool(
        re.fullmatch(r"\s*\$?\s*\\f?box(?:ed)?\s*\{[^$]*\}\s*\$?\.?\s*|\s*<answer>[^<]*</answer>\s*", answer)
    )


def text_answer(answer: Any, where: str) -> str:
    """A gold answer as text. Raises UserError for what is neither text, true or false nor a finite number."""
    if isinstance(answer, bool):
        return "true" if answer else "false"
    if not isinstance(answer, (str, int, float, Decimal, date)):
        raise UserError(f"{where}: 'answer' must be text or a number, not {kind_name(answer)}")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise UserError(f"{where}: 'answer' is {answer}; it must be finite")
    try:
        answer = str(answer)
    except ValueError:
        raise UserError(f"{where}: 'answer' has too many digits; write it as text") from None
    if not answer.strip():
        raise UserError(f"{where}: 'answer' is empty")
    return answer
