"""Numbers in text: digits, words, fractions, powers of ten, percent, currency and units, as exact fractions."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from etude.tasks.answer_places import DASHES, AnswerPlace, bare, raised
from etude.tasks.number_words import SCALES, in_digits
from etude.tasks.units import CURRENCY, same_amount, together, unit

LONGEST = 400  # characters of one number: beyond this nobody meant a number
EXPONENT = 4000  # the largest power of ten that is worked out

_DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d{1,3}(?:'\d{3})+(?!\d)|\d+"
_ONE = rf"(?:(?:{_DIGITS})(?:\.\d*)?|\.\d+)"
_POWER = (
    r"(?:\s?(?:[x*·×]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\s?(?P<power>[-+]?\d+)\s?\}?|[eE](?P<e>[-+]?\d+)"
    rf"|\s?(?P<scale>{'|'.join(SCALES)})\b)"
)
_FRACTION = r"\\[dt]?frac\s?(?:\{\s?(?P<top>-?\d+)\s?\}|(?P<top1>\d))\s?(?:\{\s?(?P<bottom>-?\d+)\s?\}|(?P<bottom1>\d))"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]|minus |negative )?\s?(?P<currency>\\?\$|[€£¥₹])?\s?(?P<sign2>-)?"
    rf"(?:(?P<mixed>\d+)\s?(?P<part>{_FRACTION.replace('P<top', 'P<part_top').replace('P<bottom', 'P<part_bottom')})|{_FRACTION}|"
    rf"(?P<units>\d+)[ ](?P<over_top>\d\d?)\s?/\s?(?P<over_bottom>\d\d?\d?)(?![\d.])|"
    rf"(?P<whole>{_ONE})(?:{_POWER})?(?:\s?/\s?(?P<over>{_DIGITS})(?![\d.]))?)"
    rf"(?P<degree>\s?(?:\^\s?\{{?\\circ\}}?|°))?\s?(?P<percent>\\?%|percent\b|per cent\b)?"
)


@dataclass(frozen=True)
class Quantity:
    value: Fraction
    percent: bool = False
    unit: str = ""

    @property
    def readings(self) -> set[Fraction]:
        return {self.value, self.value / 100} if self.percent else {self.value}

    def equals(self, other: Quantity) -> bool:
        """One number, whatever dresses it; where both have a known unit, the same amount of the same thing."""
        same = same_amount(self.value, self.unit, other.value, other.unit)
        return bool(self.readings & other.readings) if same is None else same


def tidy(text: str) -> str:
    """Text in which numbers can be read: digits of all scripts, LaTeX spaces and separators, dashes."""
    text = unicodedata.normalize("NFKC", raised(text)).translate(DASHES).replace("\N{FRACTION SLASH}", "/")
    text = "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in text)
    text = re.sub(r"\\[,;! ]|\{,\}|~", lambda m: "," if m[0] == "{,}" else "", text)
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}", r" \1 ", text)
    return text.replace("\\left", "").replace("\\right", "")


def _quantity(match: re.Match[str], unit: str = "") -> Quantity | None:
    if len(match[0]) > LONGEST:
        return None
    number = _value(match)
    if number is None:
        return None
    minus = bool(match["sign"] and match["sign"].strip() not in ("+",)) ^ bool(match["sign2"])
    currency = CURRENCY.get((match["currency"] or "").lstrip("\\"), "")
    return Quantity(-number if minus else number, bool(match["percent"]), unit.casefold() or currency)


def _value(match: re.Match[str]) -> Fraction | None:
    """The number without its sign."""
    for whole, top, bottom in (
        (
            match["mixed"],
            match["part_top"] or match["part_top1"],
            match["part_bottom"] or match["part_bottom1"],
        ),
        (match["units"], match["over_top"], match["over_bottom"]),
        (None, match["top"] or match["top1"], match["bottom"] or match["bottom1"]),
    ):
        if top is None:
            continue
        if int(bottom) == 0 or (whole is not None and not 0 < int(top) < int(bottom)):
            return None
        return int(whole or 0) + Fraction(int(top), int(bottom))
    digits = re.sub(r"[,' ]", "", match["whole"])
    power = int(match["power"] or match["e"] or "0")
    over = int(re.sub(r"[,' ]", "", match["over"] or "1"))
    if abs(power) > EXPONENT or over == 0:
        return None
    return Fraction(digits) * SCALES.get((match["scale"] or ""), 1) * Fraction(10) ** power / over


_REPEATING = re.compile(r"(-?)(\d*)\.(\d*)\\(?:overline|bar)\s?(?:\{(\d{1,18})\}|(\d))")
_NEXT_AMOUNT = r",?\s+(?:and\s+)?(?=\d)"


def quantity(text: str) -> Quantity | None:
    """The number that all of `text` is, with its unit; None where it is more or less than that."""
    text = in_digits(bare(tidy(text)).strip())
    if re.search(_NEXT_AMOUNT, text) and len(text) <= LONGEST:
        return _one_amount(text) or _amounts(re.split(_NEXT_AMOUNT, text))
    return _one_amount(text)


def _amounts(parts: list[str]) -> Quantity | None:
    """2 hours 30 minutes."""
    total = _one_amount(parts[0])
    for part in parts[1:]:
        more = _one_amount(part)
        if total is None or more is None:
            return None
        value = together(total.value, total.unit, more.value, more.unit)
        if value is None:
            return None
        total = replace(total, value=value)
    return total


def _one_amount(text: str) -> Quantity | None:
    if repeating := _REPEATING.fullmatch(text):
        sign, whole, start, digits = *repeating.groups()[:3], repeating[4] or repeating[5]
        ten = 10 ** len(start)
        number = Fraction(int(whole + start or "0")) / ten
        number += Fraction(int(digits), ten * (10 ** len(digits) - 1))
        return Quantity(-number if sign else number)
    if re.fullmatch(r"-?(?:\d+|\d{1,3}(?:\.\d{3})+),\d{1,2}", text):  # a decimal comma
        text = text.replace(".", "").replace(",", ".")
    match = _NUMBER.match(text)
    if not match:
        return None
    rest = text[match.start() + len(match[0].rstrip()) :]
    if not rest.strip():
        return _quantity(match)
    if match["degree"] and rest.strip() in ("C", "F"):
        return _quantity(match, "°" + rest.strip())
    if _measures(rest, bool(match["scale"])):
        return _quantity(match, rest.strip())
    return None


def _measures(rest: str, scaled: bool) -> bool:
    """Whether what follows a number says what is counted: a unit, or up to three words that begin no sentence."""
    words = rest.strip()
    known = unit(words) is not None
    if known and re.match(r"[a-z]\b", words) and re.search(r"\^|\d", words):
        return rest[0] == " "  # 100 m^2 is an area, 3m^2 a polynomial
    if known:
        return True
    return bool(
        re.fullmatch(r"[A-Za-zµ]+(?:[ -][A-Za-z]+){0,2}[²³]?(?:\^\{?[23]\}?)?|[A-Za-z]{2,}/[A-Za-z]+", words)
        and not re.match(
            r"[a-z]\b|x|e\b|i\b|pi\b|(?:or|and|is|but|because|to|not|if|th|st|nd|rd)\b", words.casefold()
        )
    )


def right_side(text: str) -> str:
    """What stands after the last "=" of an equation such as "8 - 3 = 5" or "x = 5"."""
    head, equals, tail = text.rpartition("=")
    return tail if equals and tail.strip() and not re.search(r"[<>!]$", head) else text


_BOUND = r"[<>≤≥≠]|\\(?:le|ge|leq|geq|lt|gt|neq?)(?![a-z])"
_NO_ANSWER_BEFORE = re.compile(
    r"(?:\bnot|n't|\bnever|\bcannot be|\brather than|\binstead of|\bother than|\bmore than|\bless than|\bfewer than"
    r"|\bgreater than|\bsmaller than|\blarger than)\s+(?:(?:equal|equals|to|the|be|a|an|exactly|just|about)\s+)*$"
    rf"|(?:{_BOUND})\s?=?\s?$|\bbetween\s$",
    re.IGNORECASE,
)
_NO_ANSWER_AFTER = re.compile(
    rf"\s?(?:{_BOUND})|\sor (?:less|more|fewer|greater|higher|lower|above|below)\b|\s(?:is|was|would be)(?:n't|\s(?:not|wrong|incorrect|too|never))\b",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"(\bbetween\s[^.;\n]{1,24}?\sand\s)(?=[-\d$.])", re.IGNORECASE)


def numbers(text: str) -> list[Quantity]:
    """Every number that stands for itself in a sentence: not a part of a formula, a word or a longer number, not denied
    ("not 7", "7 is wrong") and no bound ("x > 7", "between 7 and 9")."""
    text, behind = in_digits(tidy(text)), 0
    found: list[Quantity] = []
    ends_of_ranges = {m.end() for m in _BETWEEN.finditer(text)}
    for match in _NUMBER.finditer(text):
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        end = match.start() + len(match[0].rstrip())
        before, after = text[max(0, start - 40) : start], text[end : end + 24]
        signed = (match["sign"] or "").strip()
        operand = re.search(r"(?:\d|[)\]}]|(?<![A-Za-z])[A-Za-z])\s?([*/×·]\s?)?$", before)
        if operand and (signed in ("-", "+") or operand[1]):
            continue  # the second operand of a sum or a product
        if signed == "-" and re.search(r"[\w)\]}]\s?$", before):
            unsigned = _NUMBER.match(text, match.start("sign") + 1)  # a minus between two operands is no sign
            if unsigned is None:
                continue
            match, before = unsigned, before + "-"
        if re.search(r"[\w\\^_{(]$|\\\w+\s?\{$|\d[.,]$", before) and not re.search(r"(?:^|[^\w])\($", before):
            continue
        if re.match(r"[A-Za-z_\\^{(]|[.,:]\d|\s?[-+*/^×·]\s?[\d\\(]|\s?\\(?!\))", after) and not re.match(
            r"[A-Za-z°]+\b", after
        ):
            continue
        if not match["degree"] and re.match(r"[A-Za-z]\b", after) and unit(after[0]) is None:  # 25x
            continue
        if _NO_ANSWER_BEFORE.search(before) or _NO_ANSWER_AFTER.match(after) or start in ends_of_ranges:
            continue
        name = _unit_at(after)
        one = _quantity(match, name)
        if one is None:
            continue
        if found and re.fullmatch(r",?\s+(?:and\s+)?", text[behind:start]):
            value = together(found[-1].value, found[-1].unit, one.value, one.unit)
            if value is not None:
                found[-1:] = [replace(found[-1], value=value)]
                continue
        behind = end + (after.index(name) + len(name) if name else 0)
        found.append(one)
    return found


def _unit_at(after: str) -> str:
    """The unit with which the text behind a number begins, the longest that is known; "" for none."""
    if match := re.match(r"\s?((?:[A-Za-z°]+\.?(?:\s?\^\s?\{?[23]\}?|[23])?[ /]?){1,3})", after):
        words = re.split(r"(?<=[ /])", match[1])
        for n in range(len(words), 0, -1):
            if unit(name := "".join(words[:n]).strip(" /.")):
                return name
    return ""


def number_in(place: AnswerPlace) -> Quantity | None:
    """The number that a reply gives at `place`."""
    text = place.text
    exact = quantity(right_side(text)) or quantity(text)
    if place.how == "box" and re.search(r"\d\s*!\s*\$?$", text):
        return None  # a factorial; elsewhere an exclamation
    if place.how == "alone":
        return exact
    if exact is not None or (place.all and not re.search(r"[A-Za-z]{2}", re.sub(r"\\[a-z]+", "", text))):
        return exact
    if place.how == "lead":
        if re.match(r"\W*not\b", text):
            return None
        sentence = re.split(r"(?<=[\w)])\.\s|\(|;", text, maxsplit=1)[0]
        found = numbers(right_side(sentence)) or numbers(sentence)
        return found[0] if found else None
    found = numbers(right_side(text)) or numbers(text)
    return found[-1] if found else None
