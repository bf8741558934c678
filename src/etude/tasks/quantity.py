"""Numbers in text: digits, words, fractions, powers of ten, percent, currency and units, as exact fractions."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from etude.tasks.answer_places import DASHES, AnswerPlace, bare

LONGEST = 400  # characters of one number: beyond this nobody meant a number
EXPONENT = 4000  # the largest power of ten that is worked out

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
    text = unicodedata.normalize("NFKC", text).translate(DASHES)
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


def number_in(place: AnswerPlace) -> Quantity | None:
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
