"""Write a small Python function. A wrong one hears of the first case in which it fails."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from etude.errors import UserError, nearest
from etude.tasks import outcomes, sandbox
from etude.tasks.check import FEEDBACK as DEGREES
from etude.tasks.check import UNARY
from etude.tasks.kind import FEEDBACK, LEVEL, Kind, Made, feedback_text, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.types import Message, Task, Verdict

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_SHOWN = 120  # characters of a value that feedback shows
LONGEST = 6  # things that one function does
_ASKED = re.compile(r"takes a list of integers, (.+?), and returns (.+?)\.")

Case = tuple[tuple[Any, ...], Any]  # arguments and result
Step = tuple[str, str, int]  # what is said of it, its code, and the number in both


@dataclass(frozen=True)
class Program:
    """The answer (its last code block, or all of it) defines a function `name` that is right on every case.

    The program runs in a process of its own (`etude.tasks.sandbox`) that is given the arguments and gives back what the
    function returns; results are compared here. A program that is too slow, raises or ends its process is wrong; it is
    not an error of the checker. `gold`: a
    program that is right. Raises UserError for an unknown kind of feedback.
    """

    name: str
    cases: tuple[Case, ...]
    gold: str = ""
    feedback: str = "unary"
    strict: bool = False
    blocking: ClassVar[bool] = True
    runs_programs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.feedback not in DEGREES:
            raise UserError(f"program check: no feedback '{self.feedback}'{nearest(self.feedback, DEGREES)}")

    def __call__(self, answer: str) -> Verdict:
        """Judges the program in `answer`."""
        fault = self.fault(code_of(answer))
        if not fault:
            return Verdict(1.0, True)
        full = f"{fault} A program that works:\n{self.gold}" if self.gold else fault
        return Verdict(0.0, False, feedback_text(self.feedback, UNARY, fault, full))

    def fault(self, code: str) -> str:
        """A sentence about the first thing that is wrong, or ""."""
        with sandbox.shared().program() as program:
            match program.load(code):
                case None:
                    pass
                case outcomes.NotPython(line, message):
                    return f"Line {line} of the program cannot be read: {message}."
                case stopped:
                    return f"The program cannot be loaded: {stopped}."
            for arguments, result in self.cases:
                called = f"{self.name}({', '.join(map(repr, arguments))})"
                match program.call(self.name, arguments):
                    case outcomes.Missing():
                        return f"The program defines no function {self.name}."
                    case outcomes.Returned(found):
                        if not (type(found) is type(result) and found == result):
                            return f"{called} returned {_short(found)}; it should return {result!r}."
                    case stopped:
                        return f"{called} {stopped}; it should return {result!r}."
        return ""

    def posed(self, task: Task, text: str) -> Task | None:
        """The function that `text` asks for in the words of these tasks, with its calls worked out by running it;
        None where it asks for none."""
        found = _ASKED.search(text)
        steps = [_step(said) for said in found[1].split(", then ")] if found else []
        known = [step for step in steps if step is not None]
        if found is None or found[2] not in ENDS or len(known) < len(steps) or len(steps) > LONGEST:
            return None
        draw = random.Random(item_seed("program", "written", found[0]))
        made = _function(known, found[2], draw, len(self.cases), self.feedback)
        assert made.check is not None
        return replace(
            task,
            prompt=(*task.prompt[:-1], Message(task.prompt[-1].role, made.prompt)),
            check=made.check,
            answer=made.answer,
            reference=made.reference,
        )


def code_of(answer: str) -> str:
    """The program in an answer: its last code block, or all of it."""
    blocks = _BLOCK.findall(answer)
    return str(blocks[-1]) if blocks else answer


def _short(value: Any) -> str:
    if isinstance(value, outcomes.Other):
        return f"a {value.kind}"
    try:
        text = repr(value)
    except ValueError:  # an integer of too many digits to write down
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


STEPS = {
    "adds {k} to every number": "xs = [x + {k} for x in xs]",
    "multiplies every number by {k}": "xs = [x * {k} for x in xs]",
    "removes the numbers less than {k}": "xs = [x for x in xs if x >= {k}]",
    "keeps the even numbers only": "xs = [x for x in xs if x % 2 == 0]",
    "reverses the list": "xs = xs[::-1]",
    "sorts the list": "xs = sorted(xs)",
    "removes the first {k} numbers": "xs = xs[{k}:]",
    "squares every number": "xs = [x * x for x in xs]",
}
ENDS = {"the list": "xs", "their sum": "sum(xs)", "how many there are": "len(xs)"}


def _make(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("program", seed))
    chosen = [(said, code, draw.randint(2, 5)) for said, code in draw.sample(list(STEPS.items()), s["steps"])]
    said, _ = draw.choice(list(ENDS.items()))
    return _function(chosen, said, draw, s["cases"], s["feedback"])


def _function(chosen: Sequence[Step], said: str, draw: random.Random, number: int, feedback: str) -> Made:
    """The task of doing `chosen`, then returning what `said` names, with `number` calls worked out."""
    end = ENDS[said]
    body = "".join(f"    {code.format(k=k)}\n" for _, code, k in chosen)
    gold = f"def f(xs):\n{body}    return {end}"
    place: dict[str, Any] = {}
    exec(gold, place)
    cases = []
    for _ in range(number):
        xs = [draw.randint(-9, 9) for _ in range(draw.randint(0, 6))]
        cases.append(((xs,), place["f"](list(xs))))
    steps = ", then ".join(text.format(k=k) for text, _, k in chosen)
    prompt = f"Write a Python function f(xs) that takes a list of integers, {steps}, and returns {said}."
    return Made(prompt, check=Program("f", tuple(cases), gold, feedback), answer=gold, reference=gold)


def _step(said: str) -> Step | None:
    """The step that these words name."""
    for text, code in STEPS.items():
        found = re.fullmatch(re.escape(text).replace(r"\{k\}", r"(\d{1,3})"), said)
        if found:
            return text, code, int(found[1]) if found.groups() else 0
    return None


KIND = Kind(
    "Write a Python function, judged by running it",
    (
        Param("steps", int, 1, "things that the function does, 1 to 6"),
        Param("cases", int, 8, "calls that it is judged by, 1 to 50"),
        FEEDBACK,
        LEVEL,
    ),
    tuple({"steps": n} for n in (1, 2, 3, 4, 6)),
    lambda s: out_of_range(s, steps=(1, LONGEST), cases=(1, 50)),
    _make,
    "generator",
)
