"""Multiple choice as data sets write it: the choices beside the question become part of the prompt, the gold a letter.

Choices are a list (`choices`, `options`, `endings`: texts, or {"text": [...], "label": [...]}), or columns of their own (A, B, C,
...; option_a, ...; choice1, ...; sol1, ...). The right one is named by its letter, its label, its text or its number; whether
numbers count from 0 or 1 is read off the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import UserError

LETTERS = "ABCDEFGHIJ"
LISTS = ("choices", "options", "endings", "mc1_targets")
RIGHT = (
    "answerKey",
    "answer_key",
    "answer_idx",
    "answer_index",
    "correct",
    "label",
    "gold",
    "answer",
    "target",
)
ASKED = ("question", "prompt", "problem", "ctx", "goal", "query", "stem", "instruction")
_COLUMN = re.compile(r"(?:option|choice|opt|sol|ending)?[ _]?([A-Ja-j]|\d)", re.IGNORECASE)

Row = tuple[str, dict[str, Any]]


def with_choices(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of multiple choice with `prompt`, `answer` (a letter) and `check` in place. Raises UserError where a
    row names no choice, or where a file of numbers does not show from what they count."""
    found = [(where, row, _choices(row, where)) for where, row in rows]
    numbers = [_number(_right(row)[1]) for _, row, choices in found if choices]
    first = _counted_from([n for n in numbers if n is not None], [c for _, _, c in found if c])
    return [(where, _posed(row, choices, first, where) if choices else row) for where, row, choices in found]


def _choices(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """{label as the file has it: text}; empty where the row holds no choices."""
    if _right(row)[0] is None or not any(name in row for name in ASKED):
        return {}
    for name in LISTS:
        given = row.get(name)
        if isinstance(given, str) and given.lstrip()[:1] in "[{":
            try:
                given = json.loads(given)
            except ValueError:
                raise UserError(f"{where}: '{name}' is not a list of choices: {given:.60}") from None
        if isinstance(given, Mapping) and isinstance(given.get("text"), Sequence):
            labels = given.get("label") or LETTERS[: len(given["text"])]
            return _all(dict(zip(map(str, labels), given["text"], strict=False)), where)
        if isinstance(given, Mapping) and given and all(isinstance(v, str) for v in given.values()):
            return _all({str(k): v for k, v in given.items()}, where)
        if (
            isinstance(given, list | tuple)
            and len(given) > 1
            and all(isinstance(t, str | int | float) for t in given)
        ):
            return _all(dict(zip(LETTERS, map(str, given), strict=False)), where, len(given))
    columns = {m[1].upper(): n for n in row if (m := _COLUMN.fullmatch(n)) and n not in RIGHT}
    labels = sorted(columns)
    runs = (
        list(LETTERS[: len(labels)]),
        [str(i) for i in range(len(labels))],
        [str(i + 1) for i in range(len(labels))],
    )
    if len(labels) < 2 or labels not in runs:
        return {}
    return _all({label: str(row[columns[label]]) for label in labels}, where)


def _all(choices: dict[str, str], where: str, number: int = 0) -> dict[str, str]:
    if max(len(choices), number) > len(LETTERS):
        raise UserError(f"{where}: {max(len(choices), number)} choices; at most {len(LETTERS)} are read")
    return choices


def _right(row: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The column that names the right choice, and what it says."""
    return next(((n, row[n]) for n in RIGHT if row.get(n) not in (None, "")), (None, None))


def _number(said: Any) -> int | None:
    if isinstance(said, bool) or not re.fullmatch(r"\d{1,2}", str(said).strip()):
        return None
    return int(said)


def _counted_from(numbers: Sequence[int], choices: Sequence[Mapping[str, str]]) -> int | None:
    """0 or 1, or None where the numbers of the file fit both."""
    if 0 in numbers:
        return 0
    most = max((len(c) for c in choices), default=0)
    return 1 if numbers and max(numbers) == most else None


def _posed(
    row: Mapping[str, Any], choices: Mapping[str, str], first: int | None, where: str
) -> dict[str, Any]:
    column, said = _right(row)
    labels, texts = list(choices), list(choices.values())
    text = str(said).strip()
    number = _number(said)
    if text.upper() in [label.upper() for label in labels]:
        index = [label.upper() for label in labels].index(text.upper())
    elif text in texts:
        index = texts.index(text)
    elif number is not None and first is None:
        raise UserError(
            f"{where}: '{column}' is {number}, and nothing in the file shows whether choices count from 0 or from 1; "
            "write the letter instead"
        )
    elif number is not None and first is not None and 0 <= number - first < len(labels):
        index = number - first
    else:
        raise UserError(
            f"{where}: '{column}' is '{text:.40}', which names none of the choices {', '.join(labels)}"
        )
    asked = next(name for name in ASKED if name in row)
    question = row[asked]
    if not isinstance(question, str):  # a conversation: what it shows is what it shows
        return {**row, "answer": LETTERS[index], "check": "choice"}
    used = {column, asked, *LISTS}
    shown = all(t in question for t in texts)
    return {
        **{name: value for name, value in row.items() if name not in used},
        "prompt": question if shown else question + _shown(texts),
        "answer": LETTERS[index],
        "check": "choice",
    }


def _shown(texts: Sequence[str]) -> str:
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))
    return f"\n\n{lines}\n\nAnswer with {', '.join(LETTERS[: len(texts) - 1])} or {LETTERS[len(texts) - 1]}."
