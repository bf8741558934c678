"""What a task source is. Its tasks are a pure function of (kind, difficulty, seed): no state, nothing to checkpoint.
Item seeds are hashes (`etude.seeds.key`), never seed + index: neighbouring seeds would share items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from etude.errors import UserError
from etude.seeds import key
from etude.tasks.asked import asked
from etude.tasks.spec import Param
from etude.types import Task


def item_seed(*parts: object) -> int:
    """A 63-bit integer named by `parts`."""
    return key("tasks", *parts)


def digest(content: Any) -> str:
    """A short hash of anything JSON can hold (other values by their repr)."""
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Info:
    """What a source is, for the catalogue. `carries`: what its tasks bring: "reference", "hints",
    "feedback", "steps", "environment". `form`: "generator" | "environment" | "file". `fault`: why it cannot be used."""

    name: str
    form: str
    line: str
    params: tuple[Param, ...] = ()
    levels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    carries: tuple[str, ...] = ()
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for `etude tasks --json`."""
        params = [
            {
                "name": p.name,
                "type": p.type_name,
                "default": p.default if _plain(p.default) else repr(p.default),
                "doc": p.doc,
            }
            for p in self.params
        ]
        return {
            "name": self.name,
            "form": self.form,
            "line": self.line,
            "params": params,
            "levels": {kind: list(levels) for kind, levels in self.levels.items()},
            "carries": list(self.carries),
            "fault": self.fault,
        }


@runtime_checkable
class Source(Protocol):
    """Where tasks come from."""

    name: str
    kinds: tuple[str, ...]

    def levels(self, kind: str) -> tuple[float, ...]:
        """The difficulties that `draw` accepts for this kind, rising: those it was fixed to, if any."""
        ...

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        """`n` tasks; the same arguments give the same tasks. `difficulty` None: the source's own setting."""
        ...

    def describe(self) -> Info:
        """What the catalogue says of it."""
        ...

    def fingerprint(self) -> str:
        """A hash that changes whenever the tasks may."""
        ...


@runtime_checkable
class FiniteSource(Source, Protocol):
    """A source that orders and splits its tasks itself (`etude.tasks.files.Listed`)."""

    size: int  # tasks, of both parts

    def numbered(
        self, kind: str | None, difficulty: float | None, purpose: str, index: int, attempt: int, seed: int
    ) -> Task | None:
        """Task number `index + attempt` of the part `purpose` ("train" | "eval"); None where there is none."""
        ...


def check_disjoint(train: Iterable[Task], held: Iterable[Task]) -> None:
    """Raises UserError naming how many tasks, and which first, stand in both sets, be it in other case, spacing or kind or
    with another gold answer (`tasks.asked`)."""
    known = {asked(task) for task in train}
    shared = [task for task in held if asked(task) in known]
    if shared:
        first = shared[0].prompt[-1].content[:60] if shared[0].prompt else shared[0].key
        raise UserError(
            f"{len(shared)} task(s) stand in both the training and the evaluation set, "
            f"the first asking '{first}'; remove them from one of the two"
        )


def check_level(kind: str, difficulty: float, levels: Sequence[float]) -> float:
    """`difficulty` itself. Raises UserError when it is not one of `levels`."""
    if difficulty not in levels:
        raise UserError(
            f"'{kind}' has no difficulty {difficulty:g}; choose one of {', '.join(f'{v:g}' for v in levels)}"
        )
    return float(difficulty)


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))
