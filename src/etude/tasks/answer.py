"""One check for golds of every kind: numbers with units, percent and currency; LaTeX; choices; yes or no; dates; lists, sets
and tuples; text. It looks at the gold to know what kind of answer is asked for, at the reply to find where the answer
stands, and compares the two as that kind is compared.

A reply's thinking (up to `</think>`) is not its answer. The answer is what is marked as one (a box, <answer>, ####, "the
answer is"), else the last line. Golds of one kind never fall back to a laxer one: 4 is not "4 sqrt(2)", "A cat" is not A.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cached_property
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks.check import UNARY, AnswerCheck
from etude.tasks.extract import alone, check_rule, extract, tags

LONGEST = 400  # characters of one number: beyond this nobody meant a number
EXPONENT = 4000  # the largest power of ten that is worked out

# ---- text --------------------------------------------------------------------------------------------

_QUOTES = str.maketrans(dict.fromkeys("‘’‚‛′`", "'") | dict.fromkeys("“”„‟″", '"'))
_DASHES = str.maketrans(dict.fromkeys("−–‐‑﹣－", "-"))
_DRESSING = " \t\n.,;:!?。，、；：！？'\"*_`"


def folded(text: str) -> str:
    """Text as it is compared: compatibility forms, case, quotes, dashes and runs of white space are one."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).translate(_DASHES)
    return " ".join(text.casefold().split())


def bare(text: str) -> str:
    """Text without what only dresses it: final stops, quotes, emphasis, `$`, \\text{...}, brackets around all of it."""
    before = None
    while before != text:
        before = text
        text = text.rstrip(_DRESSING).lstrip(_DRESSING.replace(".", ""))
        text = text.lstrip(".") if not re.match(r"\.\d", text) else text
        for opened, closed in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            if len(text) > len(opened) + len(closed) and text.startswith(opened) and text.endswith(closed):
                inner = text[len(opened) : -len(closed)]
                text = inner if opened not in inner else text
        text = re.sub(r"^\\(?:text|textbf|mathrm|mathbf|rm|mbox)\s*\{([^{}]*)\}$", r"\1", text)
    return text


# ---- where the answer stands -------------------------------------------------------------------------

ENDS = ("</think>", "</thinking>")
TAIL = 6000  # characters at the end of a reply in which its answer is looked for: bounds the work on a hostile text
_NEXT = re.compile(r"\n\s*(?:question|q|problem|user|human)\s*\d*\s*:", re.IGNORECASE)
_HASH = re.compile(r"####\s*([^\n]+)")
_BOX = re.compile(r"\\f?box(?:ed)?(?![a-z])")
_LEAD = re.compile(
    r"(?:\b(?:final\s+|correct\s+|right\s+)?(?:answer|result|solution|option|choice)\b(?:\s+to\s[^.:\n]{0,60}?)?"
    r"\s*(?:is|are|was|equals|would\s+be|must\s+be|=|:)\s*:?|答案(?:是|为|：|:))\s*",
    re.IGNORECASE,
)


def said(reply: str) -> str:
    """The reply without its thinking, and without a next question that a model made up after its answer."""
    thought = max((reply.lower().rfind(end) + len(end) for end in ENDS if end in reply.lower()), default=0)
    text = reply[thought:]
    begun = [i for i in (text.lower().find(tag) for tag in ("<think>", "<thinking>")) if i >= 0]
    text = text[: min(begun)] if begun else text
    text = text[-TAIL:]
    cut = _NEXT.search(text)
    return text[: cut.start()] if cut and text[: cut.start()].strip() else text


def boxes(text: str) -> list[str]:
    """What stands in \\boxed{...}, \\fbox{...} or after \\boxed, in order."""
    found = []
    for match in list(_BOX.finditer(text))[-16:]:
        rest = text[match.end() :].lstrip()
        if not rest.startswith("{"):
            found.append(re.split(r"[\s$]", rest, maxsplit=1)[0])
            continue
        depth = 0
        for i, letter in enumerate(rest):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 0:
                found.append(rest[1:i])
                break
    return found


@dataclass(frozen=True)
class Place:
    """An answer as it stands in a reply. `whole`: all of it is meant; otherwise it begins with the answer ("lead") or holds
    it somewhere ("line"). "alone": the answer must be all of the text (the strict reading)."""

    text: str
    how: str  # "whole" | "lead" | "line" | "alone"


def places(reply: str, strict: bool = False) -> Iterator[Place]:
    """Where the answer may stand, most telling first; the first that is there is the only one that counts, but for a lead
    ("the answer is"), after which the last line is looked at as well."""
    text = said(reply)
    for marks in (
        boxes(text),
        [tag.strip() for tag in tags(text)],
        [m.strip() for m in _HASH.findall(text)],
    ):
        if marks:
            if not strict or len({folded(bare(m)) for m in marks}) == 1:
                yield Place(marks[-1], "alone" if strict else "whole")
            return
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return
    if strict:
        lead = re.match(
            r"\W*(?:so|thus|therefore|hence)?,?\s*(?:the\s+|my\s+)?" + _LEAD.pattern, text, re.IGNORECASE
        )
        yield Place((text[lead.end() :] if lead else text).strip(), "alone")
        return
    leads = list(_LEAD.finditer(text))
    if leads:
        rest = text[leads[-1].end() :].strip()
        if rest:
            yield Place(rest.splitlines()[0], "lead")
            return
    if len(lines) == 1:
        yield Place(lines[0].strip(), "whole")
    yield Place(lines[-1].strip(), "line")


# ---- numbers -----------------------------------------------------------------------------------------

_DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+"
_ONE = rf"(?:(?:{_DIGITS})(?:\.\d*)?|\.\d+)"
_POWER = r"(?:\s?(?:[x*·×]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\s?([-+]?\d+)\s?\}?|[eE]([-+]?\d+))"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]|minus |negative )?\s?(?P<currency>\\?\$|[€£¥₹])?\s?(?P<sign2>-)?"
    rf"(?:\\[dt]?frac\s?\{{\s?(?P<top>-?\d+)\s?\}}\s?\{{\s?(?P<bottom>\d+)\s?\}}|"
    rf"(?P<whole>{_ONE})(?:{_POWER})?(?:\s?/\s?(?P<over>{_DIGITS})(?![\d.]))?)"
    rf"(?P<degree>\s?(?:\^\s?\{{?\\circ\}}?|°))?\s?(?P<percent>\\?%|percent\b|per cent\b)?"
)
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    + ("seventeen eighteen nineteen")
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {w: i for i, w in enumerate(_SMALL.split())} | {w: 10 * i for i, w in enumerate(_TENS.split(), 2)}
_WORD = re.compile(
    rf"\b(?:(?:{_TENS.replace(' ', '|')})(?:[-\s](?:{'|'.join(_SMALL.split()[1:10])}))?|{_SMALL.replace(' ', '|')})\b",
    re.IGNORECASE,
)
_TABLE: dict[str, dict[str, Fraction]] = {
    "time": {
        "s sec second seconds": Fraction(1),
        "min mins minute minutes": Fraction(60),
        "h hr hrs hour hours": Fraction(3600),
        "day days": Fraction(86400),
        "week weeks": Fraction(604800),
    },
    "length": {
        "mm millimeter millimeters millimetre millimetres": Fraction(1, 1000),
        "cm centimeter centimeters centimetre centimetres": Fraction(1, 100),
        "m meter meters metre metres": Fraction(1),
        "km kilometer kilometers kilometre kilometres": Fraction(1000),
    },
    "mass": {
        "mg milligram milligrams": Fraction(1, 1000),
        "g gram grams": Fraction(1),
        "kg kilogram kilograms kilo kilos": Fraction(1000),
    },
    "money": {"cent cents": Fraction(1, 100), "dollar dollars usd": Fraction(1)},
}
_UNITS = {
    name: (what, factor)
    for what, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}


@dataclass(frozen=True)
class Quantity:
    value: Fraction
    percent: bool = False
    unit: str = ""

    @property
    def readings(self) -> set[Fraction]:
        return {self.value, self.value / 100} if self.percent else {self.value}

    def equals(self, other: Quantity) -> bool:
        """One number, whatever dresses it; where both have a known unit of one quantity, the same amount."""
        mine, theirs = _UNITS.get(self.unit), _UNITS.get(other.unit)
        if mine and theirs:
            return mine[0] == theirs[0] and self.value * mine[1] == other.value * theirs[1]
        return bool(self.readings & other.readings)


def tidy(text: str) -> str:
    """Text in which numbers can be read: digits of all scripts, LaTeX spaces and separators, dashes."""
    text = unicodedata.normalize("NFKC", text).translate(_DASHES)
    text = "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in text)
    text = re.sub(r"\\[,;! ]|\{,\}|~", lambda m: "," if m[0] == "{,}" else "", text)
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}", r" \1 ", text)
    return text.replace("\\left", "").replace("\\right", "")


def in_digits(text: str) -> str:
    """Numbers in words up to ninety-nine as digits, where the text holds no digits at all."""
    if any(c.isdigit() for c in text):
        return text
    return _WORD.sub(lambda m: str(sum(_WORDS[w] for w in re.split(r"[-\s]", m[0].casefold()))), text)


def _quantity(match: re.Match[str], unit: str = "") -> Quantity | None:
    if len(match[0]) > LONGEST:
        return None
    if match["top"] is not None:
        top, bottom = match["top"], match["bottom"]
        value = None if int(bottom) == 0 else Fraction(int(top), int(bottom))
    else:
        digits = match["whole"].replace(",", "").replace(" ", "")
        power = int(next((p for p in match.groups()[6:8] if p), "0")) if _has_power(match) else 0
        over = int((match["over"] or "1").replace(",", "").replace(" ", ""))
        value = (
            None if abs(power) > EXPONENT or over == 0 else Fraction(digits) * Fraction(10) ** power / over
        )
    if value is None:
        return None
    minus = bool(match["sign"] and match["sign"].strip() not in ("+",)) ^ bool(match["sign2"])
    return Quantity(-value if minus else value, bool(match["percent"]), unit.casefold())


def _has_power(match: re.Match[str]) -> bool:
    return any(match.groups()[6:8])


_UNIT = re.compile(r"\s?([A-Za-zµ°]+)(?:[ ./^\w]*)?")


def quantity(text: str) -> Quantity | None:
    """The number that all of `text` is, with its unit; None where it is more or less than that."""
    text = bare(tidy(text)).strip()
    text = in_digits(text)
    if re.fullmatch(r"\d+,\d{1,2}", text):  # a decimal comma
        text = text.replace(",", ".")
    match = _NUMBER.match(text)
    if not match:
        return None
    rest = text[match.end() :].strip()
    if not rest:
        return _quantity(match)
    if (
        re.fullmatch(r"[A-Za-zµ]+(?:[ -][A-Za-z]+){0,2}[²³]?(?:\^\{?[23]\}?)?", rest)
        and not re.match(r"[a-z]\b|x|e\b|i\b|pi\b|(?:or|and|is|but|because|to|not|if)\b", rest.casefold())
    ) or rest in _UNITS:
        return _quantity(match, rest.split()[0])
    return None


def right_side(text: str) -> str:
    """What stands after the last "=" of an equation such as "8 - 3 = 5" or "x = 5"."""
    head, equals, tail = text.rpartition("=")
    return tail if equals and tail.strip() and not re.search(r"[<>!]$", head) else text


def numbers(text: str) -> list[Quantity]:
    """Every number that stands for itself in a sentence: not a part of a formula, a word or a longer number."""
    text, found = in_digits(tidy(text)), []
    for match in _NUMBER.finditer(text):
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        end = match.start() + len(match[0].rstrip())
        before, after = text[max(0, start - 24) : start], text[end : end + 24]
        signed = match["sign"] and match["sign"].strip() == "-"
        if signed and re.search(r"[\w)\]}]\s?$", before):
            unsigned = _NUMBER.match(text, match.start("sign") + 1)  # a minus between two operands is no sign
            if unsigned is None:
                continue
            match, before = unsigned, before + "-"
        if re.search(r"[\w\\^_{(]$|\\\w+\s?\{$|\d[.,]$", before) and not re.search(r"(?:^|[^\w])\($", before):
            continue
        if re.match(r"[A-Za-z_\\^{(]|[.,:]\d|\s?[-+*/^×·]\s?[\d\\(]|\s?\\", after) and not re.match(
            r"[A-Za-z°]+\b", after
        ):
            continue
        unit = _UNIT.match(after)
        one = _quantity(match, unit[1] if unit and unit[1].casefold() in _UNITS else "")
        if one is not None:
            found.append(one)
    return found


def number_in(place: Place) -> Quantity | None:
    """The number that a reply gives at `place`."""
    text = place.text
    exact = quantity(right_side(text)) or quantity(text)
    if place.how == "alone":
        return exact
    if exact is not None or (
        place.how == "whole" and not re.search(r"[A-Za-z]{2}", re.sub(r"\\[a-z]+", "", text))
    ):
        return exact
    if place.how == "lead":
        if re.match(r"\W*not\b", text):
            return None
        sentence = re.split(r"(?<=[\w)])\.\s|\(|;", text, maxsplit=1)[0]
        found = numbers(right_side(sentence)) or numbers(sentence)
        return found[0] if found else None
    found = numbers(right_side(text)) or numbers(text)
    return found[-1] if found else None


# ---- choices, yes and no, dates ----------------------------------------------------------------------

_CHOICE = re.compile(r"\(?([A-Ja-j])\)?")
_PICKED = re.compile(
    r"(?:answer|option|choice|correct(?:\s+\w+)?|select|choose|pick)\s*(?:is|:|=|would be)?\s*:?\s*\**\(?([A-J])\)?(?![\w'])"
    r"|\(?\b([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right|answer)",
)
YES = {"yes": True, "true": True, "no": False, "false": False}


def choice_in(place: Place) -> str | None:
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


def truth_in(place: Place) -> bool | None:
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


# ---- lists -------------------------------------------------------------------------------------------


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


# ---- the check ---------------------------------------------------------------------------------------

_LATEX = re.compile(r"\\[a-zA-Z]{2,}|\^|_\{|√|π|∞|∪")
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
    if _LATEX.search(text) or _formula(text):
        return "math"
    return "text"


def math_kind(gold: str) -> str:
    """The kind of a gold that is said to be mathematics: a letter or a word is still one, a date is a difference."""
    kind = kind_of(gold)
    return "math" if kind in ("date", "time", "digits") else kind


@dataclass(frozen=True)
class Answer(AnswerCheck):
    """A reply is right if the answer that it gives is the gold's. `kind`: one of `KINDS`; "auto" looks at the gold."""

    extract: str = "auto"  # where the answer stands: found as the module says, or by one of `extract.RULES`
    kind: str = "auto"

    def __post_init__(self) -> None:
        if self.extract != "auto":
            check_rule(self.extract, "answer check")
        self.check_feedback()
        if self.kind not in ("auto", *KINDS):
            raise UserError(f"answer check: no kind '{self.kind}'{nearest(self.kind, KINDS)}")
        readable = {
            "number": lambda gold: quantity(gold) is not None,
            "choice": lambda gold: choice_in(Place(gold, "whole")) is not None,
            "yes or no": lambda gold: folded(bare(gold)) in YES,
            "date": lambda gold: date_in(gold) is not None,
        } | dict.fromkeys(("list", "set", "tuple"), lambda gold: parts(gold) is not None)
        if self.kind in readable and not readable[self.kind](self.gold):
            kind = self.kind if self.kind == "yes or no" else f"a {self.kind}"
            raise UserError(f"answer check: the gold answer '{self.gold:.60}' is not {kind}")

    @cached_property
    def asked(self) -> str:
        return kind_of(self.gold) if self.kind == "auto" else self.kind

    @property
    def isolated(self) -> bool:  # type: ignore[override]
        """Mathematics is compared by libraries that can take for ever, so in a process of its own."""
        return self.asked in ("math", "list", "set", "tuple")

    def prepare(self) -> None:
        if self.isolated:
            import math_verify  # noqa: F401

    def __call__(self, answer: str) -> Any:
        from etude.types import Verdict

        found = self.found(answer)
        if any(self.agrees(place) for place in found):
            return Verdict(1.0, True)
        return self.failed(f"{UNARY} {self._asks()}" if found else self.missing())

    def found(self, answer: str) -> list[Place]:
        """Where the answer may stand in a reply."""
        if self.extract == "auto" and self.asked == "text" and "\n" in self.gold.strip():
            return [Place(said(answer), "alone" if self.strict else "whole")]
        if self.extract == "auto":
            return list(places(answer, self.strict))
        text = (alone if self.strict else extract)(said(answer), self.extract)
        return [] if text is None else [Place(text, "alone" if self.strict else "whole")]

    def read(self, answer: str) -> str | None:
        """What a reply answers, written so that equal answers are equal texts; None where it answers nothing."""
        found = self.found(answer)
        for place in found:
            if self.asked == "number" and (number := number_in(place)) is not None:
                return str(number.value)
            if self.asked == "choice" and (letter := choice_in(place)) is not None:
                return letter
            if self.asked == "yes or no" and (truth := truth_in(place)) is not None:
                return "yes" if truth else "no"
        return folded(bare(right_side(found[0].text))) if found else None

    def _asks(self) -> str:
        """What kind of answer is asked for, as a hint."""
        kind = {"choice": "the letter of a choice", "digits": "a number of fixed digits", "math": "a formula"}
        article = "" if self.asked in ("yes or no", "text") else "a "
        return f"The answer is {kind.get(self.asked, article + self.asked)}."

    def missing(self) -> str:
        return "No answer was found."

    def agrees(self, place: Place) -> bool:
        """Whether the answer at `place` is the gold's."""
        return {
            "number": self._number,
            "choice": lambda p: choice_in(p) == choice_in(Place(self.gold, "whole")),
            "yes or no": lambda p: truth_in(p) == YES[folded(bare(self.gold))],
            "date": self._date,
            "time": self._text,
            "digits": self._digits,
            "list": self._parts,
            "set": self._parts,
            "tuple": self._parts,
            "math": self._math,
            "text": self._text,
        }[self.asked](place)

    def _number(self, place: Place) -> bool:
        mine, gold = number_in(place), quantity(self.gold)
        if mine is not None and gold is not None:
            return gold.equals(mine)
        if gold is None or place.how not in ("whole", "alone") or not _LATEX.search(place.text):
            return False
        if not _soon(place.text):
            return False
        return mathematically_equal(self.gold, place.text)

    def _date(self, place: Place) -> bool:
        gold = date_in(self.gold)
        return gold is not None and any(date_in(t) == gold for t in (place.text, _ending(place.text)))

    def _digits(self, place: Place) -> bool:
        wanted = re.sub(r"[-\s.()+]", "", folded(self.gold))
        return wanted in {
            re.sub(r"[-\s.()+]", "", folded(bare(t))) for t in (place.text, right_side(place.text))
        }

    def _text(self, place: Place) -> bool:
        gold, text = folded(bare(self.gold)), folded(bare(place.text))
        if text == gold:
            return True
        if place.how == "lead" and re.match(rf"{re.escape(gold)}(?!\w)", text):
            return True
        if place.how == "alone" or not re.search(
            rf"(?<!\w){re.escape(gold)}$|[是为]{re.escape(gold)}$", text
        ):
            return False
        sentence = re.split(r"[.!?。！？]\s*", text)[-1]
        return not re.search(r"\b(?:not|never|neither|nor|or|isn't|wasn't|cannot)\b|n't\b|不|没", sentence)

    def _parts(self, place: Place) -> bool:
        gold = parts(self.gold)
        assert gold is not None
        texts = [place.text, right_side(place.text)] if place.text.count("=") == 1 else [place.text]
        for text in texts:
            mine = parts(text)
            if mine is None:
                continue
            if mine[0] and gold[0] and mine[0] != gold[0] and "set" in (mine[0], gold[0]):
                continue
            elements = [right_side(e) for e in mine[1]]
            if len(elements) != len(gold[1]):
                continue
            if gold[0] != "set":
                if all(_same(g, m) for g, m in zip(gold[1], elements, strict=True)):
                    return True
                continue
            left = list(elements)
            for g in gold[1]:
                found = next((m for m in left if _same(g, m)), None)
                if found is None:
                    break
                left.remove(found)
            else:
                return True
        return False

    def _math(self, place: Place) -> bool:
        texts = [place.text, _ending(place.text)] if place.how in ("lead", "line") else [place.text]
        return any(mathematically_equal(self.gold, t) for t in dict.fromkeys(texts) if t)


_SOON = re.compile(
    r"(?:[-+*/()=\d\s.,$|!{}\[\]]|\^|\\(?:[dt]?frac|sqrt|cdot|times|div|left|right|log|ln|text|pi|[,;! ]))*"
)


def _soon(text: str) -> bool:
    """Whether a formula in place of a number is sure to be worked out soon: it is, in the process that trains."""
    powers = re.findall(r"\^\s*(\{[^{}]*\}|.)", text)
    return (
        len(text) <= LONGEST // 4
        and bool(_SOON.fullmatch(text))
        and len(powers) == text.count("^") <= 2
        and all(re.fullmatch(r"\{?\s*-?\d{1,2}\s*\}?|\{?\\circ\}?", p) for p in powers)
        and not re.search(r"\d{3,}\s*!|!\s*!|[)}\]]\s*!", text)
    )


def _same(gold: str, mine: str) -> bool:
    return (
        Answer(gold).agrees(Place(mine, "whole"))
        if gold.strip() and mine.strip()
        else gold.strip() == mine.strip()
    )


def _ending(text: str) -> str:
    """What comes last in a sentence, after "is" or ":"."""
    return re.split(r"\bis\b|\bare\b|:", text)[-1]


# ---- mathematics -------------------------------------------------------------------------------------

_GLYPHS = {
    "π": "\\pi ",
    "∞": "\\infty ",
    "√": "\\sqrt",
    "∪": "\\cup ",
    "×": "\\times ",
    "·": "\\cdot ",
    "≤": "\\le ",
    "≥": "\\ge ",
}


def as_latex(text: str) -> str:
    """Text as LaTeX that math-verify reads: glyphs as commands, one kind of matrix, names of constants."""
    text = bare(text.translate(_DASHES))
    for glyph, command in _GLYPHS.items():
        text = text.replace(glyph, command)
    text = re.sub(r"(?<![\\A-Za-z])(pi|sqrt|infty)(?![A-Za-z])", r"\\\1", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\(begin|end)\{[bvBV]?matrix\}", r"\\\1{pmatrix}", text)
    return f"${text}$"


def mathematically_equal(gold: str, mine: str) -> bool:
    """By math-verify (Hugging Face), and exactly: numbers that only agree to many digits are different. Symbols under a root
    are taken for positive."""
    import logging

    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # its time limits are off, which is meant
    if len(mine) > 4 * LONGEST:
        return False
    # One plain number has no second reading as an exponent too large to work out.
    if re.search(r"[eE^]\s?\{?\s?[-+]?\d{5,}", mine):
        return False
    wanted = math_verify.parse(as_latex(gold), parsing_timeout=0)  # type: ignore[arg-type, unused-ignore]
    if not wanted:
        raise ValueError(f"math-verify cannot read the gold answer '{gold}'")
    given = math_verify.parse(as_latex(mine), parsing_timeout=0)  # type: ignore[arg-type, unused-ignore]
    if not given:
        return False
    if math_verify.verify(wanted, given, timeout_seconds=0):  # type: ignore[arg-type, unused-ignore]
        return not _only_close(wanted[0], given[0])
    return _equal_for_positive(wanted[0], given[0])


def _only_close(a: Any, b: Any) -> bool:
    """Whether two numbers agree only by rounding: different exact values, or a decimal for an irrational number."""
    import sympy

    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)) or a.free_symbols or b.free_symbols:
        return False
    if bool(a.atoms(sympy.Float)) != bool(b.atoms(sympy.Float)):
        exact, decimal = (b, a) if a.atoms(sympy.Float) else (a, b)
        return (
            sympy.nsimplify(decimal, rational=True) != sympy.nsimplify(exact) if exact.is_rational else True
        )
    if a.is_rational and b.is_rational:
        return sympy.Rational(a.doit()) != sympy.Rational(b.doit()) if a.is_number and b.is_number else False
    return False


def _equal_for_positive(a: Any, b: Any) -> bool:
    import sympy

    if (
        not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr))
        or not a.free_symbols
        or a.free_symbols != b.free_symbols
    ):
        return False
    if not (a.has(sympy.Pow) and b.has(sympy.Pow)) or sympy.count_ops(a) + sympy.count_ops(b) > 60:
        return False
    positive = {s: sympy.Symbol(s.name, positive=True) for s in a.free_symbols}
    return bool(sympy.simplify(a.xreplace(positive) - b.xreplace(positive)) == 0)
