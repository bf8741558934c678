"""Commands, in words of a reply or as tools: typed functions whose result is the command in words, and the way back from words to
a call."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from etude.tasks.game import move_of
from etude.tasks.spec import Param
from etude.text.tool_calls import Call
from etude.types import Verdict

TOOLS = "tools"
COMMANDS = Param(
    "commands",
    Literal["words", "tools"],
    "words",
    "how they are given: words of a reply, or calls of tools in the model's own syntax",
)
OVER = "It is over: nothing more can be done."
CALL = "Act by calling tools; several calls of one reply are carried out one after another, each as a turn."
_PREFIX = re.compile(r"^(?:>|action:|command:|i (?:will|would) )\s*", re.IGNORECASE)

Form = Callable[..., str]
"""What a command is called with, its parameters typed and its docstring what the model is told -> the command in words."""

Carry = Callable[[str], str]
"""A command in words is carried out -> what comes of it."""


class Commanded:
    """An attempt (`etude.types.Environment`) that is given commands, in words, or, with `as_tools`, by calls as well; `turns`: how
    many it allows. What it is has `_carried`, which gives them effect, and keeps the verdict in `_verdict`."""

    forms: ClassVar[Sequence[Form]] = ()  # its commands, the most special first
    code: ClassVar[bool] = (
        False  # commands hold code, so that quotes and full stops at their ends belong to them
    )

    def __init__(self, as_tools: bool, turns: int) -> None:
        self._as_tools, self._turns = as_tools, turns
        self._verdict: Verdict | None = None
        self._last = ""  # what came of the call that ended it

    def _carried(self, command: str) -> tuple[str, Verdict | None]:
        """What comes of a command, and the verdict where it was the last."""
        raise NotImplementedError

    @functools.cached_property
    def tools(self) -> list[Any]:
        """Its commands as typed functions; none where commands are words."""
        return as_tools(self.forms, self._called) if self._as_tools else []

    @property
    def over(self) -> bool:
        """Whether a call has ended the attempt, so that `act` gives the verdict."""
        return self._as_tools and self._verdict is not None

    @property
    def longest(self) -> int:
        """Calls that an attempt may take, beside those that run.turns and run.tool_calls allow."""
        return self._turns if self._as_tools else 0

    def as_call(self, command: str) -> Call | None:
        """The call that stands for a command; None where commands are words, or none does."""
        return call_of(self.forms, command) if self._as_tools else None

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Carries out the command that a reply names: what it marks as its answer, else its last line. After a call that was
        the last: the verdict. Raises RuntimeError after the end."""
        if self._verdict is None:
            return self._carried(command_of(text, self.code))
        if not self._last:
            raise RuntimeError("this attempt is over: call task.environment() for a new one")
        said, self._last = self._last, ""
        return said, self._verdict

    def _called(self, command: str) -> str:
        """What a call gives."""
        if self._verdict is not None:
            return OVER
        said, verdict = self._carried(" ".join(command.split()))
        self._last = said if verdict is not None else ""
        return said

    def _named(self, command: str) -> str:
        """A command as it is given here."""
        call = self.as_call(command)
        return command if call is None else written(call)


def asked(words: str, as_tools: bool) -> str:
    """What a prompt says of how to act: "Each turn, reply with `words`.", or that tools are to be called."""
    return CALL if as_tools else f"Each turn, reply with {words}."


def command_of(text: str, code: bool = False) -> str:
    """The command in a reply, without dressing, in one line of single spaces."""
    marks = "` \t" if code else "`*\"'“” \t"
    found = _PREFIX.sub("", move_of(text).strip(marks)).strip(marks)
    return " ".join(found.split()).rstrip("" if code else ".!")


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
