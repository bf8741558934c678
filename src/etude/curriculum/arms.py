"""Arms: what a curriculum chooses among, and the base of curricula that draw arms by probability.

An arm is a kind of task at a level of difficulty, a kind, or a level. K is the number of arms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from etude.curriculum.base import SourceMixture
from etude.errors import UserError
from etude.settings import Setting
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array, Group, Request, Task

By = Annotated[
    str, Setting("what an arm is: a kind at a level, or one of them", choices=("both", "kind", "level"))
]
Every = Annotated[int, Setting("steps between two updates of the curriculum", "steps", low=1)]


@dataclass(frozen=True)
class TaskArm:
    """`options`: the pairs (kind, level) that it stands for; level None: the source's own mixture of levels."""

    name: str  # "sort/3", "sort" or "3"
    options: tuple[tuple[str, float | None], ...]

    def request(self, rng: np.random.Generator, why: str = "") -> Request:
        """One of the options, each equally likely."""
        kind, level = self.options[int(rng.integers(len(self.options)))]
        return Request(kind=kind, difficulty=level, why=why)


class Arms(Sequence[TaskArm]):
    """The arms of a task set, in its own order. Raises UserError where there is only one."""

    def __init__(self, tasks: Any, by: str = "both") -> None:
        options: dict[str, list[tuple[str, float | None]]] = {}
        self._index: dict[tuple[str, float], int] = {}
        for kind in tasks.kinds:
            for level in tasks.levels(kind):
                name = {"both": f"{kind}/{level:g}", "kind": kind, "level": f"{level:g}"}[by]
                option = (kind, None if by == "kind" else level)
                options.setdefault(name, [])
                options[name] += [option] if option not in options[name] else []
                self._index[kind, level] = list(options).index(name)
        self._arms = [TaskArm(name, tuple(found)) for name, found in options.items()]
        self.names = [arm.name for arm in self._arms]
        if len(self) < 2:
            what = {"both": "kind and level", "kind": "kind", "level": "level"}[by]
            raise UserError(
                f"this curriculum chooses among tasks, and these have a single {what} ({', '.join(self.names)}); "
                "lab has several, so have generators whose level is not fixed, and several sources joined by commas"
            )

    def __len__(self) -> int:
        return len(self._arms)

    def __getitem__(self, k: Any) -> Any:
        return self._arms[k]

    def of(self, task: Task) -> int | None:
        """The index of the arm that a task belongs to; None where it belongs to none."""
        found = self._index.get((task.kind, task.difficulty))
        if found is None:  # drawn at its source's own setting, which is not among the levels
            found = next((i for i, arm in enumerate(self) if (task.kind, None) in arm.options), None)
        return found

    def named(self, name: str) -> list[int]:
        """The arms called `name`, or all arms of that kind. Raises UserError where there is none."""
        found = [i for i, arm in enumerate(self) if name in (arm.name, arm.name.rpartition("/")[0])]
        if not found:
            raise UserError(f"there is no arm '{name}'; the arms are {', '.join(self.names)}")
        return found


def levels_of(arms: Arms) -> dict[str, list[tuple[int, float]]]:
    """{kind: [(arm, level), ...]}, levels rising, of arms by kind and level. Raises UserError where every kind has a
    single level."""
    kinds: dict[str, list[tuple[int, float]]] = {}
    for k, arm in enumerate(arms):
        ((kind, level),) = arm.options
        assert level is not None  # an arm by kind and level is one such pair
        kinds.setdefault(kind, []).append((k, level))
    if all(len(found) < 2 for found in kinds.values()):
        raise UserError(
            f"this curriculum chooses among levels, and each of these kinds has a single one: {', '.join(arms.names)}; "
            "lab has several, so have generators whose level is not fixed"
        )
    return {kind: sorted(found, key=lambda pair: pair[1]) for kind, found in kinds.items()}


class ByArm(SourceMixture):
    """A curriculum that draws every task from an arm. Subclasses say how likely each arm is (`probabilities`), explain
    a draw to people (`why`), and learn from a step (`observe`). Holds no random state: draws come from
    `context.rng`."""

    def __init__(self, by: By = "both") -> None:
        self.by = by
        self.p: Array = np.zeros(0)  # f64[K], the probabilities of the last draw

    def prepare(self, tasks: TaskSet) -> None:
        """Finds the arms of the task set, before anything is sampled."""
        self.arms = Arms(tasks, self.by)

    def probabilities(self, context: Context) -> Array:
        """f64[K]: the probability of every arm."""
        raise NotImplementedError

    def why(self, k: int) -> str:
        """Why arm k was drawn, in words."""
        return f"p {self.p[k]:.2f}"

    def next(self, n: int, context: Context) -> list[Request]:
        self.p = self.probabilities(context)
        rng = context.rng("arms", context.drawn)
        return [self.arms[k].request(rng, self.why(k)) for k in rng.choice(len(self.arms), n, p=self.p)]

    def report(self) -> Mapping[str, float]:
        """{arm: its probability when this step was drawn}."""
        return dict(zip(self.arms.names, map(float, self.p), strict=False))


class Tally:
    """Counts of right attempts and of all attempts per arm, f64[K] each, since they were last cleared."""

    def __init__(self, arms: int) -> None:
        self.right, self.tried = np.zeros(arms), np.zeros(arms)

    def add(self, arms: Arms, groups: Iterable[Group]) -> None:
        for group in groups:
            k = arms.of(group.task)
            if k is not None:
                self.right[k] += sum(e.correct for e in group.episodes)
                self.tried[k] += len(group.episodes)

    def clear(self) -> None:
        self.right, self.tried = np.zeros_like(self.right), np.zeros_like(self.tried)

    def state_dict(self) -> tuple[Array, Array]:
        return self.right.copy(), self.tried.copy()

    def load_state_dict(self, state: tuple[Array, Array]) -> None:
        self.right, self.tried = (np.array(row) for row in state)


def softmax(x: Array) -> Array:
    """exp(x_k) / sum_j exp(x_j)."""
    e: Array = np.exp(x - x.max())
    p: Array = e / e.sum()
    return p


def evenly(among: Array) -> Array:
    """f64[K]: equal probabilities for the arms where bool[K] `among`, 0 elsewhere."""
    p: Array = among / among.sum()
    return p
