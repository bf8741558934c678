"""Whether two formulas are equal, by math-verify and sympy."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

from etude.tasks.answer_places import DASHES, bare, raised
from etude.tasks.quantity import LONGEST

_SOON = re.compile(
    r"(?:[-+*/()=\d\s.,$|!{}\[\]]|\^|\\(?:[dt]?frac|sqrt|cdot|times|div|left|right|log|ln|text|pi|[,;! ]))*"
)

LARGEST = 1000.0  # an exponent that is worked out

_TOWER = re.compile(r"\^\s*(?:\{[^{}]*\}|\d+|\S)\s*\^")  # 10^10^10 is read as 10^{10^{10}}


def soon(text: str) -> bool:
    """Whether a formula in place of a number is sure to be worked out soon: it is, in the process that trains."""
    powers = re.findall(r"\^\s*(\{[^{}]*\}|.)", text)
    return (
        len(text) <= LONGEST // 4
        and bool(_SOON.fullmatch(text))
        and len(powers) == text.count("^") <= 2
        and all(re.fullmatch(r"\{?\s*-?\d{1,2}\s*\}?|\{?\\circ\}?", p) for p in powers)
        and not _TOWER.search(text)
        and not ("^" in text and "!" in text)
        and not re.search(r"\d{3,}\s*!|!\s*!|[)}\]]\s*!", text)
    )


_GLYPHS = {
    "π": "\\pi ",
    "∞": "\\infty ",
    "√": "\\sqrt",
    "∪": "\\cup ",
    "×": "\\times ",
    "·": "\\cdot ",
    "≤": "\\le ",
    "≥": "\\ge ",
}


def as_latex(text: str) -> str:
    """Text as LaTeX that math-verify reads: glyphs as commands, one kind of matrix, names of constants."""
    factorial = "!" if re.search(r"\d\s*![\s$]*$", text) else ""  # else an exclamation
    text = bare(raised(text).translate(DASHES)) + factorial
    for glyph, command in _GLYPHS.items():
        text = text.replace(glyph, command)
    text = re.sub(r"(?<![\\A-Za-z])(pi|sqrt|infty)(?![A-Za-z])", r"\\\1", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\(begin|end)\{[bvBV]?matrix\}", r"\\\1{pmatrix}", text)
    return f"${text}$"


# An inequality that can be read as an interval at once: others would have to be solved, which can take for ever.
_RELATION = re.compile(r"[<>]|\\(?:leq?|geq?|lt|gt)(?![a-z])")
_SIDE = r"(?:\s*[a-z]\s*|(?:[-\d./\s{}]|\\[dt]?frac|\\sqrt|\\pi|\\infty)+)"
_PLAIN_BOUNDS = re.compile(rf"\$?{_SIDE}(?:(?:{_RELATION.pattern}){_SIDE}){{1,2}}\$?")


def mathematically_equal(gold: str, mine: str) -> bool:
    """By math-verify (Hugging Face), and exactly: numbers that only agree to many digits are different. Symbols under a root
    are taken for positive."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # its time limits are off, which is meant
    if len(mine) > 4 * LONGEST:
        return False
    # One plain number has no second reading as an exponent too large to work out.
    if re.search(r"[eE^]\s?\{?\s?[-+]?\d{5,}", mine) or endless(mine):
        return bare(mine) == bare(gold)
    wanted = math_verify.parse(as_latex(gold), parsing_timeout=0)  # type: ignore[arg-type, unused-ignore]
    if not wanted:
        raise ValueError(f"math-verify cannot read the gold answer '{gold}'")
    given = math_verify.parse(as_latex(mine), parsing_timeout=0)  # type: ignore[arg-type, unused-ignore]
    if not given:
        return False
    interval = all(_PLAIN_BOUNDS.fullmatch(t) for t in map(as_latex, (gold, mine)) if _RELATION.search(t))
    if math_verify.verify(wanted, given, allow_set_relation_comp=interval, timeout_seconds=0):  # type: ignore[arg-type, unused-ignore]
        return not _only_close(wanted[0], given[0])
    return _equal_for_positive(wanted[0], given[0])


def endless(text: str) -> bool:
    """Whether a formula holds a number that no library should be asked for: a tower of powers of numbers, a factorial of a
    factorial or of five digits, a binomial coefficient of such a size."""
    number = r"[({\s]*(\d[\d\s.]*)[)}\s]*"
    plain = text.replace("**", "^")
    towers = re.finditer(rf"(?={number}\^{number}\^{number}(\^?))", plain)
    return bool(
        any(t[4] or _power(t[2], t[3]) > LARGEST for t in towers)
        or re.search(rf"\^{number}!", plain)
        or re.search(r"\d{5,}\s*!|!\s*[)}\]]*\s*!", plain)
        or re.search(r"binom[{\s]*(?:\d{5,}|\d+\s*\^)", plain)
    )


def _power(base: str, exponent: str) -> float:
    """base ^ exponent of two unsigned numbers as they are written, infinite where that is large."""
    try:
        return float(base.replace(" ", "")) ** float(exponent.replace(" ", ""))
    except (OverflowError, ValueError):
        return math.inf


def _only_close(a: Any, b: Any) -> bool:
    """Whether two numbers agree only by rounding: different exact values, or a decimal for an irrational number."""
    import sympy

    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)) or a.free_symbols or b.free_symbols:
        return False
    if bool(a.atoms(sympy.Float)) != bool(b.atoms(sympy.Float)):
        exact, decimal = (b, a) if a.atoms(sympy.Float) else (a, b)
        return (
            sympy.nsimplify(decimal, rational=True) != sympy.nsimplify(exact) if exact.is_rational else True
        )
    if a.is_rational and b.is_rational:
        return sympy.Rational(a.doit()) != sympy.Rational(b.doit()) if a.is_number and b.is_number else False
    return False


def _equal_for_positive(a: Any, b: Any) -> bool:
    import sympy

    if (
        not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr))
        or not a.free_symbols
        or a.free_symbols != b.free_symbols
    ):
        return False
    if not (a.has(sympy.Pow) and b.has(sympy.Pow)) or sympy.count_ops(a) + sympy.count_ops(b) > 60:
        return False
    positive = {s: sympy.Symbol(s.name, positive=True) for s in a.free_symbols}
    return bool(sympy.simplify(a.xreplace(positive) - b.xreplace(positive)) == 0)
