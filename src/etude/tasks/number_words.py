"""Numbers in English words as digits: forty-two, one hundred and twenty, two thousand five hundred, a million."""

from __future__ import annotations

import re

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
_SMALL, _TENS = _WORDS.split()[:20], _WORDS.split()[20:]
SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_VALUES = {w: i for i, w in enumerate(_SMALL)} | {w: 10 * i for i, w in enumerate(_TENS, 2)}

_BELOW_100 = rf"(?:(?:{'|'.join(_TENS)})(?:[-\s](?:{'|'.join(_SMALL[1:10])}))?|{'|'.join(reversed(_SMALL))})"
_BELOW_1000 = (
    rf"(?:(?:{'|'.join(_SMALL[1:])}|a)[-\s]hundred(?:(?:\sand)?[-\s]{_BELOW_100}\b)?|{_BELOW_100}\b)"
)
_SCALE = rf"(?:{'|'.join(SCALES)})"
NUMBER_WORDS = re.compile(
    rf"\b(?:{_BELOW_1000}|a(?=\s{_SCALE}))(?:\s{_SCALE}\b(?:,?(?:\sand)?\s{_BELOW_1000})?)*\b", re.IGNORECASE
)
_PRONOUN = re.compile(r"\b(?:the|that|this|no|which|each|every|any|some|first|second|last)\s$", re.IGNORECASE)


def value(words: str) -> int:
    """What a match of `NUMBER_WORDS` is."""
    total = part = 0
    for word in re.findall(r"[a-z]+", words.casefold()):
        if word in SCALES:
            total, part = total + max(part, 1) * SCALES[word], 0
        elif word == "hundred":
            part = max(part, 1) * 100
        else:
            part += _VALUES.get(word, 0)
    return total + part


def in_digits(text: str) -> str:
    """Numbers in words as digits, where the text holds no digits at all. "No one" and "the first one" are no numbers."""
    if any(c.isdigit() for c in text):
        return text

    def digits(match: re.Match[str]) -> str:
        is_pronoun = match[0].casefold() == "one" and _PRONOUN.search(text[: match.start()])
        return match[0] if is_pronoun else str(value(match[0]))

    return NUMBER_WORDS.sub(digits, text)
