"""Units of measure as people write them: cm, square metres, m^2, km/h, miles per hour, $."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_F = Fraction
_TABLE: dict[str, dict[str, Fraction]] = {
    "time": {
        "ms millisecond milliseconds": _F(1, 1000),
        "s sec secs second seconds": _F(1),
        "min mins minute minutes": _F(60),
        "h hr hrs hour hours": _F(3600),
        "day days": _F(86400),
        "week weeks": _F(604800),
    },
    "years": {"month months": _F(1, 12), "year years yr yrs": _F(1), "decade decades": _F(10)},
    "length": {
        "mm millimeter millimeters millimetre millimetres": _F(1, 1000),
        "cm centimeter centimeters centimetre centimetres": _F(1, 100),
        "m meter meters metre metres": _F(1),
        "km kilometer kilometers kilometre kilometres": _F(1000),
        "inch inches": _F(254, 10000),
        "ft foot feet": _F(3048, 10000),
        "yd yds yard yards": _F(9144, 10000),
        "mile miles": _F(1609344, 1000),
    },
    "mass": {
        "mg milligram milligrams": _F(1, 1000),
        "g gram grams": _F(1),
        "kg kgs kilogram kilograms kilo kilos": _F(1000),
        "tonne tonnes": _F(1000000),
        "oz ounce ounces": _F(45359237, 1600000),
        "lb lbs pound pounds": _F(45359237, 100000),
    },
    "volume": {
        "ml milliliter milliliters millilitre millilitres": _F(1, 1000),
        "l liter liters litre litres": _F(1),
    },
    "liquid": {
        "cup cups": _F(1, 16),
        "pint pints": _F(1, 8),
        "quart quarts": _F(1, 4),
        "gallon gallons": _F(1),
    },
    "dollars": {"dollar dollars usd": _F(1)},
    "euros": {"euro euros eur": _F(1)},
    "pounds of money": {"gbp": _F(1)},
    "rupees": {"rupee rupees inr": _F(1)},
    "yen": {"yen jpy": _F(1)},
    "cents": {"cent cents": _F(1)},
    "angle": {"degree degrees": _F(1)},
    "celsius": {"°c celsius": _F(1)},
    "fahrenheit": {"°f fahrenheit": _F(1)},
}
_UNITS = {
    name: (what, factor)
    for what, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}
CURRENCY = {"$": "dollars", "€": "euro", "£": "gbp", "₹": "rupees", "¥": "yen"}
_SHORT = {"mph": "miles/hour", "kph": "km/h", "kmh": "km/h", "kmph": "km/h"}
_POWER = re.compile(r"(?:\s?\^\s?\{?\s?|(?<=[a-z]))([23])\s?\}?$|\s(squared|cubed)$")
_BEFORE = re.compile(r"^(square|sq\.?|cubic|cu\.?)\s")


@lru_cache(maxsize=4096)
def unit(text: str) -> tuple[str, Fraction] | None:
    """What `text` measures and in how many of the table's units; None where it is no unit that is known here."""
    text = " ".join(text.casefold().split()).rstrip(".")
    text = _SHORT.get(text, text)
    above, over, below = re.sub(r"\s(?:per|an?)\s", "/", text).partition("/")
    if len(text) > 40 or "/" in below:
        return None
    if over:
        top, bottom = unit(above), unit(below)
        return (f"{top[0]}/{bottom[0]}", top[1] / bottom[1]) if top and bottom else None
    power = 1
    if found := _BEFORE.match(text):
        power, text = 2 if found[1].startswith("s") else 3, text[found.end() :]
    elif found := _POWER.search(text):
        power, text = int(found[1] or {"squared": 2, "cubed": 3}[found[2]]), text[: found.start()]
    if text == "in" and power > 1:
        text = "inch"
    one = _UNITS.get(text.strip())
    if one is None or power == 1:
        return one
    return f"{one[0]}^{power}", one[1] ** power


def same_amount(a: Fraction, first: str, b: Fraction, second: str) -> bool | None:
    """Whether two amounts with units are one; None where the units of one of them are unknown."""
    mine, theirs = unit(first), unit(second)
    if not mine or not theirs:
        return None
    if "cents" in (mine[0], theirs[0]) and mine[0] != theirs[0]:  # of a dollar or of a euro
        hundred = [x / 100 if what == "cents" else x for x, what in ((a, mine[0]), (b, theirs[0]))]
        return {mine[0], theirs[0]} - {"cents"} <= {"dollars", "euros"} and hundred[0] == hundred[1]
    return mine[0] == theirs[0] and a * mine[1] == b * theirs[1]


def together(a: Fraction, first: str, b: Fraction, second: str) -> Fraction | None:
    """2 hours and 30 minutes in hours; None where the second unit is no part of the first."""
    mine, theirs = unit(first), unit(second)
    if not mine or not theirs:
        return None
    if mine[0] in ("dollars", "euros") and theirs[0] == "cents":
        return a + b / 100
    return a + b * theirs[1] / mine[1] if mine[0] == theirs[0] and mine[1] > theirs[1] else None
