"""Arms: what a curriculum chooses among, and curricula that draw them by probability."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from etude.errors import UserError
from etude.settings import Setting
from etude.types import Array, Group, Request, Task

By = Annotated[
    str, Setting("what an arm is: a kind at a level, or one of them", choices=("both", "kind", "level"))
]
Every = Annotated[int, Setting("steps between two looks at what happened", "steps", low=1)]


@dataclass(frozen=True)
class Arm:
    """`options`: what may be asked for, (kind, level or None for the source's own levels)."""

    name: str  # "sort/3", "sort" or "3"
    options: tuple[tuple[str, float | None], ...]

    def request(self, rng: np.random.Generator, why: str) -> Request:
        """One of the options, each as likely."""
        kind, level = self.options[int(rng.integers(len(self.options)))]
        return Request(kind=kind, difficulty=level, why=why)


class Arms(Sequence[Arm]):
    """The arms of a task set, in its own order. UserError where there is only one."""

    def __init__(self, tasks: Any, by: str = "both") -> None:
        options: dict[str, list[tuple[str, float | None]]] = {}
        self._of: dict[tuple[str, float], int] = {}
        for kind in tasks.kinds:
            for level in tasks.levels(kind):
                name = {"both": f"{kind}/{level:g}", "kind": kind, "level": f"{level:g}"}[by]
                option = (kind, None if by == "kind" else level)
                options.setdefault(name, [])
                options[name] += [option] if option not in options[name] else []
                self._of[kind, level] = list(options).index(name)
        self._arms = [Arm(name, tuple(found)) for name, found in options.items()]
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
        """Which arm a task belongs to; None where it came from elsewhere."""
        found = self._of.get((task.kind, task.difficulty))
        if found is None:  # drawn at its source's own setting, which is not among the levels
            found = next((i for i, arm in enumerate(self) if (task.kind, None) in arm.options), None)
        return found

    def named(self, name: str) -> list[int]:
        """The arms called `name`, or all arms of that kind. UserError where there is none."""
        found = [i for i, arm in enumerate(self) if name in (arm.name, arm.name.rpartition("/")[0])]
        if not found:
            raise UserError(f"there is no arm '{name}'; the arms are {', '.join(self.names)}")
        return found


class ByArm:
    """A curriculum over arms. What follows says how likely each arm is (`chances`), in words why (`why`), and
    learns from what happened (`observe`). Keeps no random state."""

    def __init__(self, by: By = "both") -> None:
        self.by = by
        self.now: Array = np.zeros(0)  # f64[K], the probabilities of the last draw

    def prepare(self, tasks: Any) -> None:
        """Finds the arms, before anything is sampled."""
        self.arms = Arms(tasks, self.by)

    def chances(self, context: Any) -> Array:
        """f64[K]: the probability of every arm."""
        raise NotImplementedError

    def why(self, k: int) -> str:
        return f"p {self.now[k]:.2f}"

    def next(self, n: int, context: Any) -> list[Request]:
        self.now = self.chances(context)
        rng = context.rng("arms", context.drawn)
        return [self.arms[k].request(rng, self.why(k)) for k in rng.choice(len(self.arms), n, p=self.now)]

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        return None

    def report(self) -> dict[str, float]:
        """{arm: its probability when this step was drawn}."""
        return dict(zip(self.arms.names, map(float, self.now), strict=False))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


class Tally:
    """Right answers and answers of every arm, f64[K] each, since they were last cleared."""

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


def softmax(x: Array) -> Array:
    """exp(x_k) / sum_j exp(x_j)."""
    e = np.exp(x - x.max())
    return e / e.sum()


def evenly(chosen: Array) -> Array:
    """Equal probabilities where bool[K] `chosen`, 0 elsewhere."""
    return chosen / chosen.sum()
