"""Arithmetic over several turns: a calculator to call, and a total to keep."""

from __future__ import annotations

import operator
import random
import re
from dataclasses import dataclass
from typing import Any

from etude.tasks.arithmetic import evaluate
from etude.tasks.extract import extract, value
from etude.tasks.kind import FEEDBACK, LEVEL, Kind, Made, feedback_text, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.types import Verdict

_CALL = re.compile(r"\bCALC\b[:\s]*(-?\d+)\s*([-+*])\s*(-?\d+)", re.IGNORECASE)
_ANSWER = re.compile(r"\bANSWER\b[:\s]*(-?\d[\d,]*)", re.IGNORECASE)
WORDS = {"+": "Add {}.", "-": "Take away {}.", "*": "Multiply by {}."}
OVER = "the game is over: call task.environment() for a new one"


@dataclass(frozen=True)
class Calculator:
    """Makes a fresh game: the value of `expression` with a calculator that takes two numbers at a time."""

    expression: str
    turns: int
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> CalculatorEnvironment:
        """A new episode; nothing in it is left to chance."""
        return CalculatorEnvironment(self)


class CalculatorEnvironment:
    """One game: `etude.types.Environment`. Ends with an answer, or without one when the turns are used up."""

    def __init__(self, errand: Calculator) -> None:
        self._errand = errand
        self._trace: list[str] = []
        self._over = False

    def observe(self) -> str:
        """How many replies are left."""
        left = self._errand.turns - len(self._trace)
        return f"You have {left} {'reply' if left == 1 else 'replies'} left."

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes an answer, else the last call. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError(OVER)
        answers, calls = _ANSWER.findall(text), _CALL.findall(text)
        if answers:
            return "Thank you.", self._verdict(answers[-1])
        if calls:
            call = " ".join(calls[-1])
            said = f"{call} = {evaluate(call)}"
        else:
            said = "Neither CALC nor ANSWER was found in your reply."
        self._trace.append(said)
        if len(self._trace) >= self._errand.turns:
            return "You have no replies left.", self._verdict(None)
        return f"{said}\n{self.observe()}", None

    def solve(self) -> list[str]:
        """One call for each operation, in the order of precedence, then the answer."""
        parts: list[Any] = self._errand.expression.split()
        calls = []
        for signs in ("*", "+-"):
            while (at := next((i for i, p in enumerate(parts) if p in signs), None)) is not None:
                call = " ".join(map(str, parts[at - 1 : at + 2]))
                calls.append(f"CALC {call}")
                parts[at - 1 : at + 2] = [str(evaluate(call))]
        return [*calls, f"ANSWER {parts[0]}"]

    def _verdict(self, answer: str | None) -> Verdict:
        self._over = True
        gold, mine = evaluate(self._errand.expression), None if answer is None else value(answer)
        assert gold is not None
        if mine == gold:
            return Verdict(1.0, True)
        how = (
            f"{answer} is too {'high' if mine > gold else 'low'}."
            if mine is not None
            else "You gave no answer."
        )
        hint = f"{how} Your calls: {'; '.join(self._trace) or 'none'}."
        full = f"{hint} The right answer is {gold}."
        return Verdict(0.0, False, feedback_text(self._errand.feedback, "That is not right.", hint, full))


@dataclass(frozen=True)
class RunningTotal:
    """Makes a fresh game: a number is changed step by step; it is asked for after each step."""

    start: int
    steps: tuple[tuple[str, int], ...]  # "+" | "-" | "*" and a number
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> RunningTotalEnvironment:
        """A new episode; nothing in it is left to chance."""
        return RunningTotalEnvironment(self)

    @property
    def values(self) -> list[int]:
        """The number after each step."""
        does = {"+": operator.add, "-": operator.sub, "*": operator.mul}
        found = [self.start]
        for sign, k in self.steps:
            found.append(does[sign](found[-1], k))
        return found[1:]


class RunningTotalEnvironment:
    """One game: `etude.types.Environment`. Whether a reply was right is said only after the last step."""

    def __init__(self, total: RunningTotal) -> None:
        self._total = total
        self._said: list[str] = []

    def observe(self) -> str:
        """The next step."""
        sign, k = self._total.steps[len(self._said)]
        start = f"Start with {self._total.start}. " if not self._said else ""
        return f"{start}{WORDS[sign].format(k)} What is the number now?"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the last number of the reply. Raises RuntimeError after the end."""
        if len(self._said) == len(self._total.steps):
            raise RuntimeError(OVER)
        self._said.append(extract(text, "last_number") or "nothing")
        if len(self._said) < len(self._total.steps):
            return self.observe(), None
        right = [value(said) == gold for said, gold in zip(self._said, self._total.values, strict=True)]
        if all(right):
            return "Every step is right.", Verdict(1.0, True)
        first = right.index(False)
        hint = f"Step {first + 1} is wrong: the number was not {self._said[first]} then."
        full = f"{hint} The right numbers are {', '.join(self.solve())}."
        feedback = feedback_text(self._total.feedback, "Not every step is right.", hint, full)
        return "That was the last step.", Verdict(0.0, False, feedback)

    def solve(self) -> list[str]:
        """The number after each step."""
        return [str(v) for v in self._total.values]


def _errand(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("errand", seed))
    top = 10 ** s["digits"] - 1
    parts = [str(draw.randint(1, top))]
    for _ in range(s["operations"]):
        parts += [draw.choice("+-*"), str(draw.randint(1, top))]
    expression = " ".join(parts)
    turns = s["turns"] or s["operations"] + 3
    prompt = (
        f"Work out {expression}. You have a calculator for two numbers at a time: write CALC and what it shall "
        "work out, such as CALC 12 * 7. When you know the result, write ANSWER and the number."
    )
    return Made(prompt, Calculator(expression, turns, s["feedback"]), [expression, turns])


def _refuse_errand(s: dict[str, Any]) -> str:
    least = s["operations"] + 1
    if 0 < s["turns"] < least:
        return f"turns={s['turns']} is too few for {s['operations']} operations; it must be 0 or at least {least}"
    return out_of_range(s, operations=(1, 8), digits=(1, 6), turns=(0, 100))


def _total(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("total", seed))
    top = 10 ** s["digits"] - 1
    steps = []
    for _ in range(s["steps"]):
        sign = draw.choice("+-*" if s["multiply"] else "+-")
        steps.append((sign, draw.randint(2, 5) if sign == "*" else draw.randint(1, top)))
    total = RunningTotal(draw.randint(1, top), tuple(steps), s["feedback"])
    prompt = "A number is changed step by step. After each step, answer with the number as it is then."
    return Made(prompt, total, [total.start, [list(step) for step in steps]])


CALCULATOR = Kind(
    "Work out an expression with a calculator that takes two numbers at a time (a tool task)",
    (
        Param("operations", int, 1, "operations in the expression, 1 to 8"),
        Param("digits", int, 2, "digits of each number, 1 to 6"),
        Param("turns", int, 0, "replies allowed; 0: three more than there are operations"),
        FEEDBACK,
        LEVEL,
    ),
    tuple({"operations": n, "digits": d} for n, d in ((1, 2), (2, 2), (3, 3), (4, 3), (6, 4))),
    _refuse_errand,
    _errand,
)
RUNNING_TOTAL = Kind(
    "Keep a number in mind while it is changed step by step (arithmetic over several turns)",
    (
        Param("steps", int, 2, "steps, 1 to 20"),
        Param("digits", int, 1, "digits of what is added or taken away, 1 to 4"),
        Param("multiply", bool, False, "whether a step may multiply"),
        FEEDBACK,
        LEVEL,
    ),
    (
        {"steps": 2},
        {"steps": 3},
        {"steps": 4, "digits": 2},
        {"steps": 5, "digits": 2, "multiply": True},
        {"steps": 8, "digits": 2, "multiply": True},
    ),
    lambda s: out_of_range(s, steps=(1, 20), digits=(1, 4)),
    _total,
)
