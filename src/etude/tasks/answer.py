"""One check for golds of every kind: numbers with units, percent and currency; LaTeX; choices; yes or no; dates; lists, sets
and tuples; text. It looks at the gold to know what kind of answer is asked for, at the reply to find where the answer
stands, and compares the two as that kind is compared.

A reply's thinking (up to `</think>`) is not its answer. The answer is what is marked as one (a box, <answer>, ####, "the
answer is"), else the last line. Golds of one kind never fall back to a laxer one: 4 is not "4 sqrt(2)", "A cat" is not A.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks.answer_kinds import (
    KINDS,
    LATEX,
    YES,
    choice_in,
    date_in,
    dates,
    kind_of,
    parts,
    ratio_in,
    time_in,
    truth_in,
)
from etude.tasks.answer_places import AnswerPlace, bare, folded, places, said
from etude.tasks.check import UNARY, AnswerCheck
from etude.tasks.extract import alone, check_rule, extract
from etude.tasks.formula import mathematically_equal, soon
from etude.tasks.quantity import number_in, quantity, right_side

BLANK = {
    "number": "0",
    "choice": "A",
    "yes or no": "no",
    "date": "2000-01-01",
    "ratio": "1:1",
    "list": "[0]",
    "set": "{0}",
    "tuple": "(0, 0)",
}
"""For kinds of answers one that tells nothing but the kind."""


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
            "choice": lambda gold: choice_in(AnswerPlace(gold, "whole")) is not None,
            "yes or no": lambda gold: folded(bare(gold)) in YES,
            "date": lambda gold: date_in(gold) is not None,
            "ratio": lambda gold: ratio_in(gold) is not None,
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

    def found(self, answer: str) -> list[AnswerPlace]:
        """Where the answer may stand in a reply."""
        if self.extract == "auto" and self.asked == "text" and "\n" in self.gold.strip():
            return [AnswerPlace(said(answer), "alone" if self.strict else "whole")]
        if self.extract == "auto":
            found = list(places(answer, self.strict))
            return self._first_line(answer) or found if [p.how for p in found] == ["line"] else found
        text = (alone if self.strict else extract)(said(answer), self.extract)
        return [] if text is None else [AnswerPlace(text, "alone" if self.strict else "whole")]

    def _first_line(self, answer: str) -> list[AnswerPlace]:
        """An answer on a first line of its own, where an explanation follows whose last line gives none."""
        reader: dict[str, Callable[[AnswerPlace], object]] = {
            "choice": choice_in,
            "yes or no": truth_in,
            "number": number_in,
        }
        first, *_, last = (line.strip() for line in said(answer).splitlines() if line.strip())
        read = reader.get(self.asked)
        if read is None:
            return []
        begins = AnswerPlace(first, "whole" if self.asked != "number" else "alone")
        if self.asked == "yes or no":  # whatever is explained afterwards
            opens, closes = (YES.get("".join(re.findall(r"[a-z]+", t.casefold())[:1])) for t in (first, last))
            return [begins] if opens is not None and closes in (None, opens) else []
        return [begins] if read(begins) is not None and read(AnswerPlace(last, "line")) is None else []

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

    def blank(self) -> Answer:
        """A check that reads answers of this kind as this one does and whose gold tells nothing."""
        return replace(self, gold=BLANK.get(self.asked, "x"), kind=self.asked)

    def _asks(self) -> str:
        """What kind of answer is asked for, as a hint."""
        kind = {"choice": "the letter of a choice", "digits": "a number of fixed digits", "math": "a formula"}
        article = "" if self.asked in ("yes or no", "text") else "a "
        return f"The answer is {kind.get(self.asked, article + self.asked)}."

    def missing(self) -> str:
        return "No answer was found."

    def agrees(self, place: AnswerPlace) -> bool:
        """Whether the answer at `place` is the gold's."""
        return {
            "number": self._number,
            "choice": lambda p: choice_in(p) == choice_in(AnswerPlace(self.gold, "whole")),
            "yes or no": lambda p: truth_in(p) == YES[folded(bare(self.gold))],
            "date": self._date,
            "time": lambda p: self._read(time_in, p),
            "ratio": lambda p: self._read(ratio_in, p),
            "digits": self._digits,
            "list": self._parts,
            "set": self._parts,
            "tuple": self._parts,
            "math": self._math,
            "text": self._text,
        }[self.asked](place)

    def _number(self, place: AnswerPlace) -> bool:
        mine, gold = number_in(place), quantity(self.gold)
        if mine is not None and gold is not None:
            return gold.equals(mine)
        if gold is None or not (place.all or place.how == "alone") or not LATEX.search(place.text):
            return False
        if not soon(place.text):
            return False
        return mathematically_equal(self.gold, place.text)

    def _read(self, read: Callable[[str], object], place: AnswerPlace) -> bool:
        """Whether what `read` makes of the gold is what it makes of the place, or of the end of its sentence."""
        texts = (
            [place.text]
            if place.how == "alone"
            else [place.text, *re.split(r"\bis\b|\bat\b|: ", place.text)[-1:]]
        )
        return read(self.gold) in [found for t in texts if (found := read(t)) is not None]

    def _date(self, place: AnswerPlace) -> bool:
        gold = date_in(self.gold)
        found = {day for t in (place.text, _ending(place.text)) if (day := date_in(t)) is not None}
        if not found and place.how != "alone":
            found = dates(place.text)
        return gold is not None and found == {gold}

    def _digits(self, place: AnswerPlace) -> bool:
        wanted = re.sub(r"[-\s.()+]", "", folded(self.gold))
        return wanted in {
            re.sub(r"[-\s.()+]", "", folded(bare(t))) for t in (place.text, right_side(place.text))
        }

    def _text(self, place: AnswerPlace) -> bool:
        gold, text = words(self.gold), words(place.text)
        if text == gold or (place.how != "alone" and re.fullmatch(rf"{re.escape(gold)} ?\([^()]*\)", text)):
            return True
        if place.how == "lead" and re.match(rf"{re.escape(gold)}(?!\w)", text):
            return True
        if place.how != "alone" and re.search(
            rf"\b(?:is|are|was|were|by) (?:the )?{re.escape(folded(bare(self.gold)))}(?:,? (?:which|because|since|not)\b| ?\()",
            folded(place.text),
        ):
            return True
        if place.how == "alone" or not re.search(
            rf"(?<![\w-]){re.escape(gold)}$|[是为]{re.escape(gold)}$|^{re.escape(gold)}です$", text
        ):
            return False
        sentence = re.split(r"[.!?。！？]\s*", folded(bare(place.text)))[-1]
        return not re.search(r"\b(?:not|never|neither|nor|or|isn't|wasn't|cannot)\b|n't\b|不|没", sentence)

    def _parts(self, place: AnswerPlace) -> bool:
        gold = parts(self.gold)
        assert gold is not None
        texts = [place.text]
        if place.text.count("=") == 1:
            texts.append(right_side(place.text))
        if place.how != "alone":
            texts.append(_ending(place.text))
        for text in texts:
            mine = parts(text)
            if mine is None and gold[0] == "set" and len(gold[1]) == 1:
                mine = "", [text]
            if mine is None:
                continue
            if mine[0] and gold[0] and mine[0] != gold[0] and "set" in (mine[0], gold[0]):
                continue
            if {mine[0], gold[0]} == {"list", "tuple"} and len(gold[1]) == 2:
                continue  # an open interval is not a closed one
            elements = [right_side(e) for e in mine[1]]
            if gold[0] == "set":
                elements = list(dict.fromkeys(elements))
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
        interval = gold[0] in ("list", "tuple") and len(gold[1]) == 2 and _BOUNDS.search(place.text)
        signs = gold[0] == "set" and _SIGNS.search(place.text)
        return bool(interval or signs) and self._math(place)

    def _math(self, place: AnswerPlace) -> bool:
        texts = [place.text, _ending(place.text)] if place.how in ("lead", "line") else [place.text]
        return any(mathematically_equal(self.gold, t) for t in dict.fromkeys(texts) if t)


_BOUNDS = re.compile(r"[<>≤≥]|\\(?:le|ge|leq|geq|lt|gt)(?![a-z])")
_SIGNS = re.compile(r"±|\\pm(?![a-z])")


def words(text: str) -> str:
    """Text as it is compared with a gold that is text: `folded`, without stops within it, a leading article, the dots of
    U.S.A., and with one form for what is listed."""
    text = re.sub(r"\b([a-z])\.(?=[a-z]\b)", r"\1", folded(bare(text)))
    text = re.sub(r"\s*(?:,\s+(?:and\s+)?|\s&\s|\sand\s)\s*|[;:!?.](?=\s)\s*", " ", text)
    return re.sub(r"^(?:the|an|a) (?=\w)", "", text)


def _same(gold: str, mine: str) -> bool:
    return (
        Answer(gold).agrees(AnswerPlace(mine, "whole"))
        if gold.strip() and mine.strip()
        else gold.strip() == mine.strip()
    )


def _ending(text: str) -> str:
    """What comes last in a sentence, after "is" or ":"."""
    return re.split(r"\bis\b|\bare\b|:", text)[-1]
