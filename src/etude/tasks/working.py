"""Lines of written arithmetic: what each of them comes to."""

from __future__ import annotations

import re
from fractions import Fraction

from etude.tasks.arithmetic import evaluate


def states(text: str) -> list[tuple[Fraction, ...]]:
    """The state after every line, as far as lines can be read: the values of the variables that "name = expression" sets, and of what stands
    behind the last "=" of other lines, sorted."""
    variables: dict[str, Fraction] = {}
    stated: list[Fraction] = []
    found = []
    for line in text.splitlines():
        left, equals, right = line.rpartition("=")
        known = re.sub(r"[A-Za-z_]\w*", lambda m: f"({variables.get(m[0], m[0])})", right)
        value = evaluate(known) if equals else None
        if value is None:
            break
        if re.fullmatch(r"\s*[A-Za-z_]\w*\s*", left):
            variables[left.strip()] = value
        else:
            stated.append(value)
        found.append(tuple(sorted([*variables.values(), *stated])))
    return found
