"""What adapters share: the sentence where a library is missing, and a source of tasks that are worlds made by seed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import UserError
from etude.tasks.check import NoText
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import Param, typed
from etude.types import Environment, Message, Task


@dataclass(frozen=True)
class Adapter:
    """A library's environments as a source called `name`. `module`: what must be importable; `extra`: what installs it."""

    name: str
    module: str
    extra: str
    line: str
    params: tuple[Param, ...]
    carries: tuple[str, ...] = ("environment",)

    @property
    def fault(self) -> str:
        """A sentence where the library is missing, or ""."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.module} is not installed; pip install 'etude[{self.extra}]'"
        return ""

    @property
    def info(self) -> Info:
        """The catalogue's entry."""
        return Info(self.name, "environment", self.line, self.params, {}, self.carries, self.fault)

    @property
    def missing(self) -> str:
        """A sentence about what must be given, or installed."""
        if self.fault:
            return f"task '{self.name}': {self.fault}"
        first = self.params[0].name
        return f"task '{self.name}' needs {first}=..., for instance -t {self.name}:{first}=NAME"

    def read(self, given: Mapping[str, Any], needed: str = "") -> dict[str, Any]:
        """All parameters, typed. Raises UserError where the library or the parameter `needed` is missing."""
        if self.fault or (needed and not given.get(needed)):
            raise UserError(self.missing)
        return {p.name: p.default for p in self.params} | typed(f"task '{self.name}'", given, self.params)


class Catalogued:
    """An adapter that was given nothing: its entry for the catalogue. Whoever asks it for tasks hears what is missing."""

    def __init__(self, adapter: Adapter) -> None:
        self.name, self.kinds, self._adapter = adapter.name, (adapter.name,), adapter

    def describe(self) -> Info:
        return self._adapter.info

    def levels(self, kind: str) -> tuple[float, ...]:
        return (0.0,)

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        """Raises UserError."""
        raise UserError(self._adapter.missing)

    def fingerprint(self) -> str:
        return digest([self.name])


@dataclass(frozen=True)
class World:
    """One task's world: what is asked, how it is made anew, and what names it."""

    prompt: str
    environment: Callable[..., Environment]
    content: Any
    reference: str | None = None


class WorldSource:
    """Worlds without end, made by seed. Kind: the source's name; one level."""

    def __init__(
        self, name: str, info: Info, make: Callable[[int], World], identity: Sequence[Any], feedback: str
    ) -> None:
        self.name, self.kinds = name, (name,)
        self._info, self._make, self._identity, self._feedback = info, make, list(identity), feedback

    def levels(self, kind: str) -> tuple[float, ...]:
        return (0.0,)

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        check_level(kind, difficulty or 0.0, self.levels(kind))
        return [self._task(item_seed("adapter", self._identity, seed, i)) for i in range(n)]

    def describe(self) -> Info:
        return self._info

    def fingerprint(self) -> str:
        return digest([self.name, self._identity])

    def _task(self, seed: int) -> Task:
        made = self._make(seed)
        return Task(
            (Message("user", made.prompt),),
            NoText(self.name),
            kind=self.name,
            reference=made.reference,
            environment=made.environment,
            meta={"source": self.name, "environment_key": made.content, "feedback": self._feedback},
        )
