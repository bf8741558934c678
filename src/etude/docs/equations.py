"""Equations as the recipes write them, in words that a terminal can show, turned into LaTeX, and into MathML, which browsers
show without a script."""

from __future__ import annotations

import re
from collections.abc import Iterator

GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
]
OPERATORS = [
    "argmax",
    "clip",
    "cos",
    "floor",
    "mean",
    "median",
    "sg",
    "sigmoid",
    "softmax",
    "sqrt",
    "std",
    "triangle",
    "var",
    "KL",
    "CE",
    "GAE",
]
SHORT = [
    "a",
    "an",
    "as",
    "at",
    "be",
    "by",
    "if",
    "in",
    "is",
    "it",
    "no",
    "of",
    "on",
    "or",
    "so",
    "to",
    "up",
    "we",
]  # words of English that are no symbols
FUNCTIONS = {name: rf"\{name}" for name in ("exp", "log", "max", "min", "sum", "prod")}
SIGNS = {
    **{"<-": r"\leftarrow ", "->": r"\rightarrow ", "<=": r"\leq ", ">=": r"\geq ", "!=": r"\neq "},
    **{"...": r"\ldots ", "||": r"\Vert ", "~": r"\sim ", "%": r"\%", "{": r"\{", "}": r"\}", "#": r"\#"},
    **{"&": r"\&", "$": r"\$", "<": r"\lt ", ">": r"\gt ", "*": r"\cdot ", "\\": r"\setminus "},
}
TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<script>[_^](?=\S))
      | (?P<star>(?<=\w)\*(?!\s*\w)|(?<=\w)\*(?=_))
      | (?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)
      | (?P<word>[^\W\d_]+)
      | (?P<text>'s\b|(?<=[a-z]{2})-(?=[a-z]{2}))
      | (?P<sign><-|->|<=|>=|!=|\.\.\.|\|\||.)""",
    re.X,
)
CLOSING = {"(": ")", "{": "}"}


def clauses(equation: str) -> list[str]:
    """The equation's parts, a line each: what stands, outside brackets, between semicolons, or commas with two spaces."""
    found, depth, begin = [], 0, 0
    for at, sign in enumerate(equation):
        depth += (sign in "([{") - (sign in ")]}")
        after = equation[at + 1 : at + 3]
        if depth <= 0 and ((sign == ";" and after[:1].isspace()) or (sign == "," and after == "  ")):
            found.append(equation[begin:at])
            begin = at + 1
    return [part.strip() for part in [*found, equation[begin:]] if part.strip()]


def latex(clause: str) -> str:
    """One clause as LaTeX."""
    out, text = "", ""
    tokens = [*_tokens(clause), ("end", "")]
    for i, (kind, said) in enumerate(tokens[:-1]):
        after = tokens[i + 1][1]
        if kind == "word" and _is_text(said):
            kind = "name" if after == "(" or tokens[i + 1][0] == "script" else "text"
        elif said == "a" and text.strip() and after.isspace() and _is_text(tokens[i + 2][1]):
            kind = "text"  # the article
        if kind == "text" or (kind == "space" and text):
            text += said
            continue
        out, text = out + _text(text), ""
        out += r"\mathbb{E}" if said == "E" and after.startswith(("[", "_{")) else _one(kind, said)
        if kind == "space" and after and tokens[i + 1][0] == "word" and _is_text(after):
            text = " "
    return (out + _text(text)).strip()


def mathml(equation: str) -> str:
    """The equation as MathML, a formula for each clause, in one block of HTML."""
    from latex2mathml.converter import convert

    lines = [convert(latex(clause), display="block") for clause in clauses(equation)]
    return '<div class="equation">' + "".join(lines) + "</div>"


def _tokens(clause: str) -> Iterator[tuple[str, str]]:
    """(kind, text); a subscript or superscript with all that belongs to it is one token."""
    at = 0
    while at < len(clause):
        found = TOKEN.match(clause, at)
        assert found
        assert found.lastgroup
        if found.lastgroup != "script":
            yield found.lastgroup, found[0]
            at = found.end()
            continue
        end = _script_end(clause, found.end())
        yield "script", clause[at:end]
        at = end


def _script_end(clause: str, at: int) -> int:
    """Where a subscript that begins at `at` ends: a bracket, a word or number, or a comparison such as `<t`; and what
    follows a comma without a space."""
    close = CLOSING.get(clause[at])
    if close:
        depth = 0
        for i in range(at, len(clause)):
            depth += (clause[i] == clause[at]) - (clause[i] == close)
            if not depth:
                return i + 1
        return len(clause)
    found = re.compile(r"[<>]?=?-?\w+?(?=_|\b|\^)(?:,(?=[^\W_])\w+?(?=_|\b))*|.").match(clause, at)
    assert found
    return found.end()


def _one(kind: str, said: str) -> str:
    if kind == "script":
        inside = said[1:]
        if inside[0] == "{" or (said[0] == "^" and inside[0] == "("):
            inside = inside[1:-1]
        label = inside.isalpha() and inside not in GREEK  # or two indices
        return (
            said[0]
            + "{"
            + (_text(inside) if label and len(inside) > 2 else inside if label else latex(inside))
            + "}"
        )
    if kind == "star":
        return "^{*}"
    if kind == "space":
        return " "
    if kind == "name":
        return rf"\operatorname{{{said}}}"
    if kind == "number":
        mantissa, e, exponent = said.partition("e")
        return rf"{mantissa} \cdot 10^{{{exponent}}}" if e else said
    return _word(said) if kind == "word" else SIGNS.get(said, said)


def _word(said: str) -> str:
    if said in GREEK:
        return rf"\{said} "
    if said in FUNCTIONS:
        return FUNCTIONS[said] + " "
    if said in OPERATORS:
        return rf"\operatorname{{{said}}}"
    if said == "grad":
        return r"\nabla "
    return said if len(said) == 1 else rf"\mathrm{{{said}}}"


def _is_text(said: str) -> bool:
    """Whether a word is English and no symbol."""
    known = said in GREEK or said in FUNCTIONS or said in OPERATORS or said == "grad"
    return not known and (said in SHORT[1:] or (len(said) > 2 and said.islower()))


def _text(words: str) -> str:
    """Words with the spaces around them, which mathematics would drop."""
    return "\\text{" + re.sub(r"\s+", " ", words) + "}" if words.strip() else ""
