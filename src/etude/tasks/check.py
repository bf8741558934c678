"""Checkers of an answer's text, picklable. Each is a frozen dataclass called with the completion.

A checker returns a `Verdict`, or raises: an exception is an error (see `etude.types.Verdict`), never a zero.
Where `isolated` is true the caller must run the checker in a child process (`etude.tasks.isolate`).
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar, cast

from etude.errors import UserError, nearest
from etude.tasks.arithmetic import wrong_step
from etude.tasks.extract import alone, check_rule, extract, peel, value
from etude.types import Check, Task, Verdict

FEEDBACK = ("none", "unary", "hint", "full")
UNARY = "That is not right."


class CheckError(Exception):
    """A user's function that gave no result: it raised, overran its deadline or took its process down.

    `traceback`: where it raised, or the end of what it wrote to stderr; may be empty. `where`: "check" | "reward" |
    "environment"."""

    def __init__(self, message: str, traceback: str = "", where: str = "check") -> None:
        super().__init__(message)
        self.traceback, self.where = traceback, where


class TooLate(CheckError):
    """It overran its deadline."""


@dataclass(frozen=True)
class Unjudged:
    """Stands where a task has nothing to check: a prompt alone, or answers of which one is preferred. What was sampled is
    scored by a reward of the user's (`--reward`). `asked`: what the task is, for people."""

    asked: str = "without a check"

    def __call__(self, answer: str) -> Verdict:
        raise CheckError("the task has no answer to compare with; give a reward (--reward)")


def judged(task: Task) -> bool:
    """Whether the task itself says what is right: by a check, or by playing a world."""
    return task.environment is not None or not isinstance(task.check, Unjudged)


@dataclass(frozen=True)
class AnswerCheck:
    """What all exact-answer checkers share: extraction, strictness and feedback.

    `extract`: one of `etude.tasks.extract.RULES`. `feedback`: "none" (empty), "unary" ("That is not
    right."), "hint" (what kind of error it was, and which line of written arithmetic is wrong), "full" (the
    right answer). A right answer gets no feedback. Raises UserError at construction for an unknown rule or kind of feedback.
    """

    gold: str
    extract: str = "whole"
    feedback: str = "unary"
    strict: bool = False
    isolated: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_rule(self.extract, f"{type(self).__name__.lower()} check")
        self.check_feedback()

    def check_feedback(self) -> None:
        """Raises UserError for an unknown kind of feedback."""
        if self.feedback not in FEEDBACK:
            raise UserError(
                f"{type(self).__name__.lower()} check: no feedback '{self.feedback}'"
                f"{nearest(self.feedback, FEEDBACK)}"
            )

    def __call__(self, answer: str) -> Verdict:
        """Judges the completion `answer`."""
        found = (alone if self.strict else extract)(answer, self.extract)
        if found is None:
            return self.failed(self.missing())
        reward = self.score(found)
        if reward == 1.0:
            return Verdict(reward, True)
        step = wrong_step(answer) if self.feedback == "hint" else ""
        return self.failed(f"{self.hint(found)} {step}".rstrip(), reward)

    def score(self, found: str) -> float:
        """Reward in [0, 1] of an extracted answer; 1 means correct."""
        raise NotImplementedError

    def hint(self, found: str) -> str:
        """What is said of a wrong answer when feedback is "hint"."""
        return UNARY

    def missing(self) -> str:
        """What is said when no answer was found and feedback is "hint"."""
        asked = {"tag": " between <answer> and </answer>", "boxed": " in \\boxed{}"}
        return f"No answer was found{asked.get(self.extract, '')}."

    def failed(self, hint: str, reward: float = 0.0) -> Verdict:
        """The verdict on a wrong answer, with the feedback that was asked for."""
        full = f"{UNARY} The right answer is {self.gold}."
        said = {"none": "", "unary": UNARY, "hint": hint, "full": full}
        return Verdict(reward, False, said[self.feedback])


@dataclass(frozen=True)
class Exact(AnswerCheck):
    """The answer is this text, up to dressing and, unless `ignore_case` is off or it is strict, case."""

    ignore_case: bool = True

    def score(self, found: str) -> float:
        """1 where the texts agree with runs of white space taken as one space."""
        mine, gold = " ".join(peel(found).split()), " ".join(peel(self.gold).split())
        if self.ignore_case and not self.strict:
            mine, gold = mine.casefold(), gold.casefold()
        return float(mine == gold)

    def hint(self, found: str) -> str:
        """Says how long the right answer is."""
        words = len(self.gold.split())
        return f"{UNARY} The right answer has {words} word{'s' if words != 1 else ''}."


@dataclass(frozen=True)
class Number(AnswerCheck):
    """The answer is this number. `tolerance`: the largest absolute difference that still passes."""

    extract: str = "last_number"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if value(self.gold) is None:
            raise UserError(f"number check: the gold answer '{self.gold}' is not a number")
        if not 0 <= self.tolerance < float("inf"):
            raise UserError(
                f"number check: tolerance is {self.tolerance}; it must be a finite number of at least 0"
            )

    def score(self, found: str) -> float:
        """1 where the numbers differ by no more than the tolerance."""
        mine = value(found)
        return float(mine is not None and abs(mine - self.target) <= Fraction(self.tolerance))

    def hint(self, found: str) -> str:
        """Too high or too low."""
        mine = value(found)
        if mine is None:
            return f"{UNARY} The answer must be a number."
        return f"{found} is too {'high' if mine > self.target else 'low'}."

    @property
    def target(self) -> Fraction:
        """The gold answer as a number."""
        return cast(Fraction, value(self.gold))


@dataclass(frozen=True)
class Math(AnswerCheck):
    """The answer is mathematically equal to this expression, by math-verify (Hugging Face).

    math-verify's own time limits use signals, which exist on the main thread only, so they are off here
    and the checker is isolated: the child process's deadline is the limit.
    """

    isolated: ClassVar[bool] = True

    def prepare(self) -> None:
        """Imports what judging needs; done before the deadline starts."""
        import math_verify  # noqa: F401

    def score(self, found: str) -> float:
        """1 where math-verify finds the two equal. Raises ValueError for an unreadable gold answer."""
        import math_verify

        if self.strict and re.search(r"(?<!\\)\b(?:or|and)\b|[\n;?]|\$[^$]*\$.*\$", found):
            return 0.0  # more than one answer
        # math-verify warns once that its timeouts are off; that is meant, so the warning would mislead.
        logging.getLogger("math_verify").setLevel(logging.ERROR)
        gold = math_verify.parse(_as_math(self.gold), parsing_timeout=0)  # type: ignore[arg-type, unused-ignore]
        if not gold:
            raise ValueError(f"math-verify cannot read the gold answer '{self.gold}'")
        # A bare formula must be marked as mathematics; a sentence must not, its formulas are found inside.
        sentence = re.search(r"(?<![\\A-Za-z])[A-Za-z]{4,}", found)
        mine = math_verify.parse(found if sentence else _as_math(found), parsing_timeout=0)
        return float(bool(math_verify.verify(gold, mine, timeout_seconds=0)))


@dataclass(frozen=True)
class Function:
    """A user's plain function `(answer) -> float | bool | Verdict`; a float is the reward, 1 is correct.

    Set `isolated` to run it in a child process with a deadline; the function must then be importable by
    name. `stricter`: what `strict` turns it into; without one the same function judges the bare answer.
    """

    call: Callable[[str], float | bool | Verdict]
    isolated: bool = False
    stricter: Callable[[str], float | bool | Verdict] | None = None
    bare: bool = False

    def __call__(self, answer: str) -> Verdict:
        """Judges the completion. Raises what the function raises; ValueError for a value out of [0, 1]."""
        result = self.call(peel(answer) if self.bare else answer)
        return verdict_of(result, getattr(self.call, "__name__", "check"))


def verdict_of(result: Any, name: str) -> Verdict:
    """What the check called `name` returned, as a verdict. Raises ValueError for what is none."""
    if isinstance(result, Verdict):
        return result
    if isinstance(result, bool) or type(result).__name__ == "bool_":
        return Verdict(float(result), bool(result))
    try:
        reward = float(result)
    except (TypeError, ValueError):
        raise ValueError(
            f"the check function '{name}' returned {result!r:.60}; it must return a number in [0, 1], a bool or a Verdict"
        ) from None
    if not 0.0 <= reward <= 1.0:
        raise ValueError(f"the check function '{name}' returned {result!r:.60}; a reward lies in [0, 1]")
    return Verdict(reward, reward == 1.0)


@dataclass(frozen=True)
class NoText:
    """The check of a task that is judged by its environment, not by text."""

    kind: str
    isolated: bool = field(default=False, init=False)

    def __call__(self, answer: str) -> Verdict:
        """Raises RuntimeError: an environment gives its own verdicts."""
        raise RuntimeError(
            f"a task of kind '{self.kind}' is judged by its environment: call task.environment() and use its verdicts"
        )


def isolated(check: Check) -> bool:
    """Whether the checker asks to be run in a child process."""
    return bool(getattr(check, "isolated", False))


def confined(check: Check) -> bool:
    """Whether an isolated checker runs what the model wrote, so that its child must be kept in (`etude.tasks.confinement`)."""
    return bool(getattr(check, "confined", False))


def blocking(check: Check) -> bool:
    """Whether the checker waits for a process of its own, so that it wants a thread."""
    return bool(getattr(check, "blocking", False))


def strict(check: Check) -> Check:
    """The stricter second verifier: the answer must be the whole completion up to white space and format.

    Whoever passes `check` but not `strict(check)` may be hedging. Raises UserError for a check of a kind
    that has no stricter variant.
    """
    if isinstance(check, Function):
        if check.stricter is not None:
            return replace(check, call=check.stricter, stricter=None)
        return replace(check, bare=True)
    if is_dataclass(check) and not isinstance(check, type) and hasattr(check, "strict"):
        return cast(Check, replace(check, strict=True))
    if isinstance(check, NoText):
        return check
    if inspect.isfunction(check):
        return cast(Check, Function(check, bare=True))
    raise UserError(
        f"the check {check!r} has no stricter variant; wrap your function in tasks.check.Function"
    )


def corrupt(gold: str) -> str:
    """An answer that is wrong in every reading of `gold`: a number far away, or words that mean nothing."""
    number = value(gold)
    if number is None:
        return "qzj 7919 xyzzy"
    wrong = 3 * number + (7919 if number >= 0 else -7919)  # far in absolute and in relative terms
    return str(wrong.numerator) if wrong.denominator == 1 else f"{wrong.numerator}/{wrong.denominator}"


def _as_math(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text}$"


def show(task: Task, answer: str) -> str:
    """`answer` written the way the task's check looks for it, for self-tests and demonstrations."""
    rule = getattr(task.check, "extract", "whole")
    marks = {"tag": f"<answer>{answer}</answer>", "boxed": f"\\boxed{{{answer}}}"}
    return marks.get(rule, answer)
