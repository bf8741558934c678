"""What kind of answer a gold asks for, and reading a choice, yes or no, a date or a collection."""

from __future__ import annotations

import re
from datetime import date

from etude.tasks.answer_places import AnswerPlace, bare, folded
from etude.tasks.quantity import quantity, tidy

_CHOICE = re.compile(r"\(?([A-Ja-j])\)?")
_PICKED = re.compile(
    r"(?:answer|option|choice|correct(?:\s+\w+)?|select|choose|pick)\s*(?:is|:|=|would be)?\s*:?\s*\**\(?([A-J])\)?(?![\w'])"
    r"|\(?\b([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right|answer)",
)
YES = {"yes": True, "true": True, "no": False, "false": False}


def choice_in(place: AnswerPlace) -> str | None:
    """The letter that is chosen."""
    text = bare(tidy(place.text)).strip()
    if found := _CHOICE.fullmatch(text):
        return found[1].upper()
    if place.how == "alone":
        return None
    if found := re.match(r"\(?([A-J])(?:[).:]|\)\.)(?:\s|$)", text):
        return found[1]
    if place.how == "lead" and (
        found := re.match(r"\W*(?:option\s+|choice\s+)?\(?([A-J])\)?(?![\w'])", text)
    ):
        return found[1]
    picked = [m[1] or m[2] for m in _PICKED.finditer(text)]
    return picked[-1] if picked else None


def truth_in(place: AnswerPlace) -> bool | None:
    """Yes or no, by the answer's first word, or by the only word of the kind in it."""
    words = re.findall(r"[a-z]+", folded(place.text))
    if words and words[0] in YES:
        return YES[words[0]]
    found = {YES[w] for w in words if w in YES} if place.how != "alone" else set()
    return found.pop() if len(found) == 1 and "not" not in words else None


def date_in(text: str) -> date | None:
    """The day that all of `text` names, in digits or words; None for anything else."""
    from dateutil import parser

    text = bare(tidy(text))
    named = re.search(
        r"(?i)\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", text
    ) and re.search(r"\d{4}", text)
    if not named and not re.fullmatch(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}", text):
        return None
    try:
        return parser.parse(text).date()
    except (ValueError, OverflowError):
        return None


def parts(text: str) -> tuple[str, list[str]] | None:
    """The kind of collection ("list", "set", "tuple" or "" for bare commas) and its elements; None for one thing."""
    text = bare(tidy(text)).strip()
    pairs = {"[": "]", "(": ")", "{": "}", "\\{": "\\}"}
    kinds = {"[": "list", "(": "tuple", "{": "set", "\\{": "set"}
    for opened in ("\\{", "[", "(", "{"):
        if text.startswith(opened) and text.endswith(pairs[opened]):
            return kinds[opened], _split(text[len(opened) : -len(pairs[opened])])
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) or "," not in text:
        return None
    return "", _split(text)


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
KINDS = ("number", "choice", "yes or no", "date", "time", "digits", "list", "set", "tuple", "math", "text")


def _formula(text: str) -> bool:
    """Whether plain text is a formula: signs of arithmetic or a factor, and letters that are symbols or functions."""
    known = {"sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi"}
    names = re.findall(r"[A-Za-z]+", text)
    return (
        bool(names)
        and all(len(n) == 1 or n in known for n in names)
        and bool(re.fullmatch(r"[-+*/=^()\d\s.A-Za-z]+", text))
        and bool(re.search(r"[-+*/=^(]|\d[a-z]", text))
        and not re.fullmatch(r"[A-Z]-?\d+", text)
    )


def kind_of(gold: str) -> str:
    """What kind of answer a gold asks for: one of `KINDS`."""
    text = bare(tidy(gold)).strip()
    if date_in(text) is not None:
        return "date"
    if re.fullmatch(r"0\d{6,}|\+?\d{2,}(?:[- ]\d{2,}){2,}|0[xX][0-9a-fA-F]+|0[bo][01-7]+", text):
        return "digits"
    if re.fullmatch(r"\(?[A-J]\)?\.?", text):
        return "choice"
    if folded(text) in YES:
        return "yes or no"
    if quantity(gold) is not None:
        return "number"
    if re.fullmatch(r"\d{1,2}:\d{2}(?::\d{2})?", text):
        return "time"
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
