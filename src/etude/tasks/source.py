"""What a task source is, and the mixture of sources that a run draws from.

Everything is a pure function of (seed, purpose, index) through `etude.seeds.key`: nothing here has state,
hence nothing here needs a checkpoint. Item seeds are hashes, never seed + index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from etude.errors import UserError, nearest
from etude.tasks.spec import Param
from etude.types import Request, Task

TRIES = 64  # redraws before a task space counts as exhausted


def item_seed(*parts: object) -> int:
    """A 63-bit integer named by `parts`; `etude.seeds` is opened late because it brings torch along."""
    from etude.seeds import key

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
    """Where tasks come from. A finite source also has `size` and
    `numbered(...)`, by which it orders and splits its tasks itself; see `etude.tasks.files.Listed`."""

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


class TaskSet:
    """The mixture of sources a run uses, and its held-out evaluation tasks. Stateless.

    `weights`: relative shares of the sources in the mixture (default: equal). Raises UserError when two
    sources have a kind in common.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None = None) -> None:
        if not sources:
            raise UserError("a task set needs at least one source")
        self.sources = tuple(sources)
        self.weights = tuple(float(w) for w in weights) if weights is not None else (1.0,) * len(sources)
        if len(self.weights) != len(sources) or not all(0 < w < float("inf") for w in self.weights):
            raise UserError(f"task set: weights {list(self.weights)} must be positive, one for each source")
        self._of: dict[str, Source] = {}
        for source in self.sources:
            for kind in source.kinds:
                if kind in self._of:
                    raise UserError(f"two task sources are called '{kind}'; rename one with as=NAME")
                self._of[kind] = source
        self._held: dict[str, Task] = {}
        self._tries = max([TRIES, *(getattr(s, "size", 0) for s in self.sources)])

    @classmethod
    def of(
        cls,
        tasks: Iterable[Task],
        held: Iterable[Task] | None = None,
        name: str = "tasks",
        eval_share: float = 0.2,
    ) -> TaskSet:
        """A task set of your own tasks. `held`: your own evaluation tasks, which must share none with
        `tasks`; without them `eval_share` of the tasks is set aside by hash."""
        from etude.tasks.files import Listed

        return cls([Listed(name, tasks, eval_share, held)])

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds that may be asked for."""
        return tuple(self._of)

    def levels(self, kind: str) -> tuple[float, ...]:
        """The difficulties of a kind. Raises UserError for an unknown kind."""
        return self._source(kind).levels(kind)

    def fingerprint(self) -> str:
        """Names the task set: changed parameters, weights or file contents change it."""
        return digest([[s.fingerprint() for s in self.sources], self.weights])

    def describe(self) -> list[Info]:
        """What each source is."""
        return [source.describe() for source in self.sources]

    def holdout(self, n: int, seed: int) -> list[Task]:
        """`n` different evaluation tasks. From now on `draw` never returns one of them.

        Raises UserError where the sources hold fewer than `n`. Call it before drawing, and again with the
        same arguments after a resume: it gives the same tasks.
        """
        if n < 0:
            raise UserError(f"holdout: {n} tasks were asked for; the number must be 0 or more")
        found: dict[str, Task] = {}
        for i in range(n):
            for attempt in range(self._tries):
                source, kind = self._pick("eval", seed, i, attempt)
                task = self._one(source, kind, None, "eval", seed, i, attempt)
                if task is not None and task.key not in found:
                    found[task.key] = task
                    break
            else:
                raise UserError(
                    f"{n} evaluation tasks were asked for but after {len(found)} different ones "
                    f"{', '.join(self.kinds)} gave only repeats; ask for fewer or allow harder tasks"
                )
        self._held = {**self._held, **found}
        return list(found.values())

    def held(self, task: Task) -> bool:
        """Whether `task`, or the task it was made from (`meta["parent"]`, a key), is held out for evaluation."""
        return task.key in self._held or task.meta.get("parent") in self._held

    def draw(self, request: Request, index: int, seed: int) -> Task:
        """The training task number `index`: a pure function of its arguments and the held-out set.

        Raises UserError for an unknown kind or difficulty, where only held-out tasks are left, and for a task that
        is held out or was made from one that is.
        """
        if request.task is not None:
            if self.held(request.task):
                raise UserError(
                    f"task {request.task.key} is held out for evaluation; it cannot be trained on"
                )
            return request.task
        for attempt in range(self._tries):
            source, kind = self._pick("train", seed, index, attempt)
            if request.kind is not None:
                source, kind = self._source(request.kind), request.kind
            task = self._one(source, kind, request.difficulty, "train", seed, index, attempt)
            if task is not None and task.key not in self._held:
                return task
        asked = request.kind or ", ".join(self.kinds)
        raise UserError(
            f"'{asked}' has no task left to train on: {self._tries} draws gave only tasks held out for "
            f"evaluation ({len(self._held)}); hold out fewer, or allow more or harder tasks"
        )

    def _one(
        self,
        source: Source,
        kind: str | None,
        difficulty: float | None,
        purpose: str,
        seed: int,
        index: int,
        attempt: int,
    ) -> Task | None:
        numbered = getattr(source, "numbered", None)
        if numbered is not None:  # a finite source: it splits and orders its tasks itself
            return numbered(kind, difficulty, purpose, index, attempt, seed)
        assert kind is not None
        drawn = source.draw(kind, difficulty, 1, item_seed(purpose, seed, kind, index, attempt))
        return drawn[0] if drawn else None

    def _source(self, kind: str) -> Source:
        if kind not in self._of:
            raise UserError(f"this task set has no kind '{kind}'{nearest(kind, self._of)}")
        return self._of[kind]

    def _pick(self, *where: object) -> tuple[Source, str | None]:
        """A source by weight and one of its kinds, from a hash of `where`. A finite source is drawn from as a
        whole (kind None), so that each of its tasks weighs the same."""
        point = item_seed("mixture", *where) / 2**63 * sum(self.weights)
        chosen = self.sources[-1]
        for source, weight in zip(self.sources, self.weights, strict=True):
            if point < weight:
                chosen = source
                break
            point -= weight
        if hasattr(chosen, "numbered"):
            return chosen, None
        return chosen, chosen.kinds[item_seed("kind", *where) % len(chosen.kinds)]


def check_disjoint(train: Iterable[Task], held: Iterable[Task]) -> None:
    """Raises UserError naming how many tasks, and which first, stand in both sets (by content hash)."""
    keys = {task.key for task in train}
    shared = [task for task in held if task.key in keys]
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
