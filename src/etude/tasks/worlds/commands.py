"""Commands of a world as tools: typed functions whose result is the command in words, and the way back from words to a call."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from etude.text.tool_calls import Call

Form = Callable[..., str]
"""What a command is called with, its parameters typed and its docstring what the model is told -> the command in words."""

Carry = Callable[[str], str]
"""A command in words is carried out -> what comes of it."""


def forms_of(commands: type) -> list[Form]:
    """The commands that a class holds as static methods, in its order."""
    return [one.__func__ for one in vars(commands).values() if isinstance(one, staticmethod)]


def as_tools(forms: Sequence[Form], carry: Carry) -> list[Callable[..., str]]:
    """A function for each command, as `Environment.tools` are: called, it is carried out."""
    return [_tool(form, carry) for form in forms]


def _tool(form: Form, carry: Carry) -> Callable[..., str]:
    @functools.wraps(form)
    def call(**arguments: Any) -> str:
        return carry(form(**arguments))

    return call


def call_of(forms: Sequence[Form], command: str) -> Call | None:
    """The call that a command in words stands for, of the first form that fits; None where none does."""
    for form in forms:
        pattern, types = _read(form)
        if found := re.fullmatch(pattern, command, re.DOTALL | re.IGNORECASE):
            given = {name: _typed(text, types[name]) for name, text in found.groupdict().items()}
            return Call(form.__name__, given)
    return None


def written(call: Call) -> str:
    """A call as a list of what can be done names it: take(thing=apple)."""
    return f"{call.name}({', '.join(f'{name}={value}' for name, value in call.arguments.items())})"


@functools.cache
def _read(form: Form) -> tuple[str, dict[str, Any]]:
    """A pattern of the words that a form makes, with its parameters as groups, and their types."""
    types = {p.name: p.annotation for p in inspect.signature(form, eval_str=True).parameters.values()}
    marks = {name: f"\u241f{name}\u241f" for name in types}
    pattern = re.escape(form(**marks))
    for name, mark in marks.items():
        pattern = pattern.replace(re.escape(mark), f"(?P<{name}>.+?)")
    return pattern, types


def _typed(text: str, kind: Any) -> Any:
    return int(text) if kind is int and text.isdecimal() else text
