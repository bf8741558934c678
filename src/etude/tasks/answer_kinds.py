"""What kind of answer a gold asks for, and reading a choice, yes or no, a date or a collection."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime

from etude.tasks.answer_places import AnswerPlace, bare, folded
from etude.tasks.quantity import quantity, tidy

_CHOICE = re.compile(r"[(\[]?([A-Ja-j])[)\]]?")
_PICKED = re.compile(
    r"(?i:answer|option|choice|correct(?:\s+\w+)?|select|choose|pick)[\"'*_`]*\s*(?:is|:|=|would be|\s-\s)?\s*:?\s*[\"*]*\(?([A-J])\)?(?![\w'])"
    r"|\(?\b([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right|answer|best)"
    r"|\b(?i:so|thus|therefore|hence|it is|it's|it must be|maybe|probably),?\s+\**\(?([A-J])\)?(?:\W*$|\s+(?:because|since|as)\b)",
)
_ANOTHER = re.compile(r"\)?\s*(?:or|and|&|/)\s*\(?[A-J]\b")  # A or B: none is chosen
YES = {"yes": True, "true": True, "no": False, "false": False}
_SAID = YES | {"yeah": True, "yep": True, "nope": False}
_EITHER = re.compile(r"\b(?:yes|true|no|false)\W+(?:or|and)\W+(?:yes|true|no|false)\b")


def choice_in(place: AnswerPlace) -> str | None:
    """The letter that is chosen."""
    text = bare(tidy(place.text)).strip()
    if found := _CHOICE.fullmatch(text):
        return found[1].upper()
    if place.how == "alone":
        return None
    beginning = r"\(?([A-J])(?:(?:[).:]|\)\.|\s-)(?:\s|$)|,?\s(?:because|since|as)\b)"
    lead = r"\W*(?:option\s+|choice\s+)?\(?([A-J])\)?(?![\w'])"
    for pattern in (beginning, *([lead] if place.how == "lead" else [])):
        if (found := re.match(pattern, text)) and not _ANOTHER.match(text, found.end(1)):
            return found[1]
    picked = [
        next(filter(None, m.groups()))
        for m in _PICKED.finditer(text)
        if not _ANOTHER.match(text, m.end(m.lastindex or 0))
    ]
    return picked[-1] if picked else None


def truth_in(place: AnswerPlace) -> bool | None:
    """Yes or no, by the answer's first word, or by the only word of the kind in it; "not true" is no."""
    text = re.sub(r"\bno (?=(?:doubt|question|wonder)\b)", "", folded(place.text))
    text = re.sub(r"(?:\bnot|n't) (true|false)\b", lambda m: "false" if m[1] == "true" else "true", text)
    words = re.findall(r"[a-z]+", text)
    if _EITHER.search(text):
        return None
    if words and words[0] in _SAID:
        return _SAID[words[0]]
    if concluded := re.search(r"\b(?:so|hence|thus|therefore),? (yes|no|true|false)\W*$", text):
        return YES[concluded[1]]
    if words in (["t"], ["f"]):
        return words == ["t"]
    found = {_SAID[w] for w in words if w in _SAID} if place.how != "alone" else set()
    return found.pop() if len(found) == 1 and not re.search(r"\b(?:not|never|cannot)\b|n't\b", text) else None


_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = re.compile(
    rf"\b(?:{_DAY}(?:\s+of)?\s+{_MONTH}(?:,?\s+\d{{4}})?|{_MONTH}\s+{_DAY}(?:,?\s+\d{{4}})?|"
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}(?P<sign>[./])\d{1,2}(?P=sign)\d{4})(?![\w-])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Day:
    year: int | None  # None where none is named
    month: int
    day: int


def date_in(text: str) -> Day | None:
    """The day that all of `text` names, in digits or words; None for anything else."""
    from dateutil import parser

    text = bare(tidy(text))
    text = re.sub(r"(?i)^(?:on\s+)?(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?(?:the\s+)?", "", text)
    if compact := re.fullmatch(r"((?:19|20)\d\d)([01]\d)([0-3]\d)", text):
        text = "-".join(compact.groups())
    if not (match := _DATE.fullmatch(text)):
        return None
    day_first = (
        match["sign"] == "."
    )  # 5.3.2024 is written where the day comes first; 3/5/2024 where the month does
    try:
        found = parser.parse(re.sub(r"\bof\b", "", text), default=datetime(2000, 1, 1), dayfirst=day_first)
    except (ValueError, OverflowError):
        return None
    return Day(found.year if re.search(r"\d{4}", text) else None, found.month, found.day)


def dates(text: str) -> set[Day]:
    """Every day that is named in a sentence."""
    return {day for m in _DATE.finditer(tidy(text)) if (day := date_in(m[0])) is not None}


def time_in(text: str) -> tuple[int, int, int, bool] | None:
    """A time of day: hour, minute, second, and whether it says which half of the day is meant."""
    text = bare(tidy(text)).strip()
    found = re.fullmatch(
        r"(?i)(\d{1,2}):(\d{2})(?::(\d{2}))?\s?([ap]\.?m\.?)?|(\d{1,2})\s?([ap]\.?m\.?)", text
    )
    if found is None:
        return None
    hour, half = int(found[1] or found[5]), (found[4] or found[6] or "").lower()[:1]
    ambiguous = 1 <= hour <= 12
    if half and not ambiguous:
        return None
    if half:
        hour = hour % 12 + 12 * (half == "p")
    return hour, int(found[2] or 0), int(found[3] or 0), bool(half) or not ambiguous


def ratio_in(text: str) -> tuple[int, int] | None:
    """A ratio of two whole numbers in lowest terms: 4:6, 2/3 and "2 to 3" are one."""
    found = re.fullmatch(r"(\d{1,9})\s?(?::|/|to)\s?(\d{1,9})", bare(tidy(text)).strip())
    if found is None:
        return None
    a, b = int(found[1]), int(found[2])
    common = math.gcd(a, b) or 1
    return a // common, b // common


def parts(text: str) -> tuple[str, list[str]] | None:
    """The kind of collection ("list", "set", "tuple" or "" for bare commas) and its elements; None for one thing."""
    text = bare(tidy(text)).strip()
    pairs = {"[": "]", "(": ")", "{": "}", "\\{": "\\}"}
    kinds = {"[": "list", "(": "tuple", "{": "set", "\\{": "set"}
    for opened in ("\\{", "[", "(", "{"):
        if text.startswith(opened) and text.endswith(pairs[opened]):
            inner = text[len(opened) : -len(pairs[opened])]
            if not _closed(inner) or (opened == "(" and not re.search("[,;]", inner) and inner.strip()):
                return None  # (x - 2)(x + 3), (x + 1)
            return kinds[opened], _split(inner)
    text = re.sub(r",?\s+and\s+" if text.count("=") < 2 else r",?\s+(?:and|or)\s+", ", ", text)
    if re.fullmatch(r"-?\d+(?: -?\d+)+", text) and not re.fullmatch(r"\d{1,3}(?: \d{3})+", text):
        text = text.replace(" ", ",")
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) or "," not in text:
        return None
    return "", _split(text)


def _closed(text: str) -> bool:
    """Whether every bracket that closes in `text` was opened in it."""
    depth = 0
    for letter in text:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(letter, 0)
        if depth < 0:
            return False
    return True


def _split(text: str) -> list[str]:
    found, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(letter, 0)
        if letter in ",;" and depth == 0:
            found.append(text[start:i].strip())
            start = i + 1
    return [*found, text[start:].strip()] if text.strip() else []


LATEX = re.compile(r"\\[a-zA-Z]{2,}|\^|_\{|√|π|∞|∪")
_INTERVAL = re.compile(r"[\[(][^,\[\]()]+,[^,\[\]()]+[\])]")
KINDS = (
    "number",
    "choice",
    "yes or no",
    "date",
    "time",
    "ratio",
    "digits",
    "list",
    "set",
    "tuple",
    "math",
    "text",
)


def _formula(text: str) -> bool:
    """Whether plain text is a formula: signs of arithmetic or a factor, and letters that are symbols or functions."""
    known = {"sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi"}
    names = re.findall(r"[A-Za-z]+", text)
    return (
        bool(names)
        and all(len(n) == 1 or n in known or (len(n) == 2 and re.search(r"[+=^*]", text)) for n in names)
        and bool(re.fullmatch(r"[-+*/=<>≤≥^()_\d\s.A-Za-z]+", text))
        and bool(re.search(r"[-+*/=<>≤≥^(]|\d[a-z]", text))
        and not re.fullmatch(r"[A-Z]-?\d+", text)
    )


def kind_of(gold: str) -> str:
    """What kind of answer a gold asks for: one of `KINDS`."""
    text = bare(tidy(gold)).strip()
    if date_in(text) is not None:
        return "date"
    if re.fullmatch(r"0\d{6,}|(?:\d{2,}|\+\d+)(?:[- ]\d{2,}){2,}|0[xX][0-9a-fA-F]+|0[bo][01-7]+", text):
        return "digits"
    if re.fullmatch(r"\(?[A-J]\)?\.?", text):
        return "choice"
    if folded(text) in YES:
        return "yes or no"
    if time_in(text) is not None:
        return "time"
    if re.search(r"\d\s*![\s$]*$", gold):
        return "math"
    if quantity(gold) is not None:
        return "number"
    if re.fullmatch(r"\d+\s?:\s?\d+", text):
        return "ratio"
    mixed = _INTERVAL.fullmatch(text) and text[0] + text[-1] in ("[)", "(]")
    if re.search(r"\\cup|\\infty|∞|∪|\\begin", gold) or mixed:
        return "math"
    found = parts(gold)
    if found and found[1] and (found[0] or all(quantity(e) for e in found[1])):
        return found[0] or "list"
    if LATEX.search(text) or _formula(text):
        return "math"
    return "text"


def math_kind(gold: str) -> str:
    """The kind of a gold that is said to be mathematics: a letter or a word is still one, a date is a difference."""
    kind = kind_of(gold)
    return "math" if kind in ("date", "time", "digits") else kind
