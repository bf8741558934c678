"""Subtle errors put into a right step of a solution: by rules, or by a model that is asked to."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

_NUMBER = re.compile(r"\d+")
_OPERATION = re.compile(r"(\d+)(\s*)([-+*/])(\s*)(\d+)")
_OTHER = {"+": "-", "-": "+", "*": "+", "/": "*"}


def _number(step: str, rng: np.random.Generator) -> str:
    found = list(_NUMBER.finditer(step))
    if not found:
        return step
    one = found[rng.integers(len(found))]
    changed = abs(int(one[0]) + int(rng.choice([-10, -2, -1, 1, 2, 10])))
    return step[: one.start()] + str(changed) + step[one.end() :]


def _operator(step: str, rng: np.random.Generator) -> str:
    return _change(step, rng, lambda m: m[1] + m[2] + _OTHER[m[3]] + m[4] + m[5])


def _operands(step: str, rng: np.random.Generator) -> str:
    return _change(step, rng, lambda m: m[5] + m[2] + m[3] + m[4] + m[1])


def _term(step: str, rng: np.random.Generator) -> str:
    return _change(step, rng, lambda m: m[1])


def _change(step: str, rng: np.random.Generator, new: Callable[[re.Match[str]], str]) -> str:
    found = list(_OPERATION.finditer(step))
    if not found:
        return step
    one = found[rng.integers(len(found))]
    return step[: one.start()] + new(one) + step[one.end() :]


ERRORS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "change a number": _number,
    "change an operator": _operator,
    "swap two operands": _operands,
    "drop a term": _term,
}


def subtle_error(step: str, rng: np.random.Generator) -> str | None:
    """The step with one error drawn among those that apply to it; None where none does."""
    for name in rng.permutation(list(ERRORS)):
        changed = ERRORS[name](step, rng)
        if changed != step:
            return changed
    return None
