"""Taking the answer out of a completion.

A rule says where the answer stands; it returns the text of the answer or None when there is none. Numbers
are exact fractions, so that 0.5, 1/2 and 50e-2 are one number and no rounding decides a verdict.
"""

from __future__ import annotations

import re
from fractions import Fraction

from etude.errors import UserError, nearest

RULES = ("last_number", "first_number", "tag", "boxed", "line", "whole")

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
# A minus sign belongs to a number only where no operand precedes it: "7-3" holds 7 and 3, "= -3" holds -3.
_NUMBER = re.compile(
    rf"(?<![\w.])(?:(?<![\d)\]]\s)(?<![)\]])[-+])?(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\d))?(?:\s?/\s?\d+(?![\d.]))?"
)
_OPEN, _CLOSE = (re.compile(tag, re.IGNORECASE) for tag in ("<answer>", "</answer>"))
_LEAD = re.compile(
    r"(?:so|thus|therefore|hence)?,?\s*(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|result|solution)(?:\s+to\s[^.:\n]{0,60}?)?"
    r"\s*(?:is\s*:?|:|=)\s*",
    re.IGNORECASE,
)
_OPERATORS = frozenset("+-*/×÷^")
_SUM = _OPERATORS | frozenset("0123456789 \t().,")  # what may stand before the "=" of "2 + 3 = 5"
_LONGEST = 400  # characters of one number; beyond this nobody meant a number, and int() would refuse
_MOST = 16  # boxes looked at, and layers of dressing taken off: bounds the work on a hostile text


def check_rule(rule: str, where: str) -> str:
    """`rule` itself. Raises UserError naming `where` when it is not one of `RULES`."""
    if rule not in RULES:
        raise UserError(f"{where}: no extraction rule '{rule}'{nearest(rule, RULES)}")
    return rule


def numbers(text: str) -> list[str]:
    """Every number in the text, as written, in order of appearance."""
    return [m.group() for m in _NUMBER.finditer(_plain(text))]


def value(text: str) -> Fraction | None:
    """The number that the whole text is, up to white space, `$`, `\\boxed{}` and a final stop; else None."""
    found = _NUMBER.fullmatch(_plain(peel(text)))
    if found is None or len(found.group()) > _LONGEST:
        return None
    top, _, bottom = found.group().replace(",", "").replace(" ", "").partition("/")
    if bottom and not int(bottom):
        return None
    return Fraction(top) / Fraction(bottom or 1)


def peel(text: str) -> str:
    """The text without what only dresses an answer: white space, quotes, `$`, bold, a box, a final stop."""
    for _ in range(_MOST):
        before = text
        text = text.strip().strip("`").strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'$":
            text = text[1:-1]
        if len(text) > 4 and text.startswith("**") and text.endswith("**"):
            text = text[2:-2]
        if text.startswith("\\boxed{") and _box(text, 0) == text[7:-1]:
            text = text[7:-1]
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
        if text == before:
            break
    return text


def unlead(text: str) -> str:
    """The text without one phrase such as "The answer is" before it, and without an equation "2 + 3 ="."""
    text = text.strip()
    found = _LEAD.match(text)
    if found:
        text = text[found.end() :]
    left, equals, right = text.partition("=")
    if equals and _SUM.issuperset(left) and not _OPERATORS.isdisjoint(left):
        text = right.strip()
    return text


def extract(text: str, rule: str) -> str | None:
    """The answer in `text` under `rule`; None where the text holds none."""
    if rule in ("last_number", "first_number"):
        found = numbers(text)
        return found[-1 if rule == "last_number" else 0] if found else None
    if rule == "tag":
        found = tags(text)
        return found[-1].strip() if found else None
    if rule == "boxed":
        boxes = _boxes(text)
        return boxes[-1].strip() if boxes else None
    if rule == "line":
        lines = [line for line in text.splitlines() if line.strip()]
        return unlead(lines[-1]) or None if lines else None
    return text.strip() or None


def alone(text: str, rule: str) -> str | None:
    """The strict reading: the answer, only where the completion is nothing but that answer.

    A tag or a box may follow working, but all tags (boxes) of the completion must agree; under every other
    rule the completion must be the answer itself, up to white space, dressing and one lead-in phrase.
    """
    if rule in ("tag", "boxed"):
        marked = tags(text) if rule == "tag" else _boxes(text)
        return marked[0].strip() if len({peel(m) for m in marked}) == 1 else None
    return unlead(text) or None


def _plain(text: str) -> str:
    return text.replace("−", "-").replace("–", "-")


def tags(text: str) -> list[str]:
    """What stands between tags. Two splits, because a lazy regular expression is quadratic in open tags."""
    parts = [_OPEN.split(part) for part in _CLOSE.split(text)[:-1]]
    return [part[-1] for part in parts if len(part) > 1]


def _boxes(text: str) -> list[str]:
    starts = [m.start() for m in re.finditer(r"\\boxed\{", text)][-_MOST:]
    inside = [_box(text, start) for start in starts]
    return [box for box in inside if box is not None]


def _box(text: str, start: int) -> str | None:
    depth = 1
    for i in range(start + 7, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + 7 : i]
    return None
