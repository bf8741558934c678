"""A user's own functions as tools, called where a user's checks are (`tasks.user_code`): beside the run, under its deadline.

A function is one tool, the same for all episodes. Of a class every public method is one, and every episode has an object of its
own. What is asynchronous runs in the run's own event loop, many calls at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from etude.errors import UserError
from etude.tasks.check import CheckError
from etude.tasks.isolate import Pool
from etude.tasks.user_code import foreign
from etude.tools.tool import Tool, ToolError, shown, tool
from etude.types import Task

MOST = 1 << 20  # characters of a result that come back from beside the run


class Apply:
    """A call with its arguments by name, which gives text."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.call = function

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        return shown(self.call(**arguments), MOST)


class Held:
    """An object whose methods are called by name."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def use(self, name: str, arguments: Mapping[str, Any]) -> str:
        return shown(getattr(self._made, name)(**arguments), MOST)


class Making:
    """Makes an object of a user's class for an episode."""

    def __init__(self, kind: Callable[[], Any]) -> None:
        self.call = kind

    def __call__(self, seed: int) -> Any:
        return Held(self.call())


def _told(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result; what went wrong beside the run is what the policy hears."""
    try:
        return call(*arguments)
    except CheckError as error:
        raise ToolError(str(error)) from None


class Function:
    """A function of the user's."""

    def __init__(self, function: Callable[..., Any], pool: Pool) -> None:
        self.name, self.function = getattr(function, "__name__", type(function).__name__), function
        here = not foreign(function)
        run = partial(_told, pool.beside.call, "tool", f"the tool '{self.name}'", Apply(function))
        self._tool = tool(function, slow=not here, run=None if here else run)

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        return [self._tool]

    def close(self) -> None:
        """Nothing is held."""


class Methods:
    """The public methods of a user's class."""

    def __init__(self, kind: type, pool: Pool) -> None:
        self.name, self.kind, self._pool = kind.__name__, kind, pool
        self._methods = {
            name: found
            for name, found in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }
        if not self._methods:
            raise UserError(f"the class '{self.name}' has no method that could be a tool")
        for method in self._methods.values():
            tool(method)  # refused now rather than in the first episode

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        held: list[Any] = []

        def use(name: str, arguments: Mapping[str, Any]) -> Any:
            if not held:
                held.append(self._pool.beside.environment(Making(self.kind), seed))
            return held[0].use(name, arguments)

        return [
            tool(method, slow=True, keeps=True, run=partial(_told, use, name))
            for name, method in self._methods.items()
        ]

    def close(self) -> None:
        """Objects of episodes end with them."""


def of(thing: Any, pool: Pool) -> Function | Methods:
    """The source that a function or a class of the user's is. UserError for anything else."""
    if inspect.isclass(thing):
        return Methods(thing, pool)
    if not callable(thing):
        raise UserError(f"{thing!r:.60} is no tool; it must be a typed function, or a class of them")
    return Function(thing, pool)
