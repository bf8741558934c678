"""Written arithmetic: the value of an expression, and the first line of a working that is false."""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction
from typing import Any

from etude.tasks.extract import value

_LONGEST = 80  # characters of one expression
_MOST = 4000  # characters of a text that are looked at
_EQUATION = re.compile(
    r"(?<![\w.,=+\-*/×÷^(])([-(]?\d[\d\s.+\-*/×÷()]{0,78}[\d)])\s*=\s*(-?\d[\d,]*(?:\.\d+)?)(?!\s*[*/×÷^])"
)
_OPERATIONS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(expression: str) -> Fraction | None:
    """The exact value of + - * / over numbers and brackets; None for anything else and for a division by 0."""
    text = expression.replace("×", "*").replace("÷", "/").replace("−", "-").strip()
    if len(text) > _LONGEST or "//" in text or "**" in text:
        return None
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, KeyError, RecursionError):
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.BinOp):
        result: Fraction = _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
        return result
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    raise ValueError("not plain arithmetic")


def wrong_step(text: str) -> str:
    """A sentence about the first equation in the text that does not hold, without what would be right; "" where
    every equation that can be read holds."""
    for number, line in enumerate(text[:_MOST].splitlines(), 1):
        for left, right in _EQUATION.findall(line):
            mine, claimed = evaluate(left), value(right)
            if mine is not None and claimed is not None and mine != claimed:
                return f"Line {number} is wrong: {' '.join(left.split())} is not {right}."
    return ""
