"""Weakness: what a first phase of training leaves unlearnt gets more new tasks in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from etude.settings import Setting
from etude.types import Array, Group, Request

WHY = "weak"
Unit = tuple[str, float]  # kind and level


def slope(values: Sequence[float]) -> float:
    """The least-squares slope over 0, 1, 2, ...; 0 for a single value."""
    times = np.arange(len(values)) - (len(values) - 1) / 2
    return float(times @ np.array(values) / max(times @ times, 1e-12)) if len(values) else 0.0


def is_weak(accuracy: Sequence[float], most: float = 0.5) -> bool:
    """Whether accuracy never rose above `most` and is not rising."""
    return bool(accuracy) and max(accuracy) <= most and slope(accuracy) <= 0


def failure_ratios(weak: Mapping[Unit, bool]) -> dict[str, float]:
    """The share of each kind's levels that are weak; kinds without any are left out."""
    of: dict[str, list[bool]] = {}
    for (kind, _), failing in weak.items():
        of.setdefault(kind, []).append(failing)
    return {kind: float(np.mean(found)) for kind, found in sorted(of.items()) if any(found)}


class Weakness:
    """Two phases. The first draws the source's own mixture and logs the accuracy of every level of every kind, in
    `parts` parts. In the second, `share` of the tasks are new ones of weak levels, a kind getting as much as the
    share of its levels that are weak."""

    def __init__(
        self,
        first: Annotated[
            float, Setting("share of the budget that the first phase takes", low=0.01, high=1)
        ] = 0.5,
        parts: Annotated[
            int, Setting("parts of the first phase in which accuracy is logged", low=1, high=64)
        ] = 4,
        most: Annotated[float, Setting("accuracy above which a level is not weak", low=0, high=1)] = 0.5,
        share: Annotated[
            float, Setting("share of the second phase's tasks that go to weak levels", low=0, high=1)
        ] = 0.5,
    ) -> None:
        self.first, self.parts, self.most, self.share = first, parts, most, share
        self.tried: dict[Unit, Array] = {}  # int64[parts, 2]: right attempts and all
        self.progress = 0.0  # of the step that is under way

    def next(self, n: int, context: Any) -> list[Request]:
        self.progress = context.progress
        weak = self.weak() if self.progress >= self.first else {}
        ratios = failure_ratios(weak)
        if not ratios:
            return [Request() for _ in range(n)]
        return [
            self._one(context.rng("weak", context.drawn + i), weak, ratios, context.tasks) for i in range(n)
        ]

    def _one(
        self, rng: np.random.Generator, weak: Mapping[Unit, bool], ratios: Mapping[str, float], tasks: Any
    ) -> Request:
        if rng.random() >= self.share:
            return Request()
        kinds = list(ratios)
        budget = np.array(list(ratios.values()))
        kind = kinds[rng.choice(len(kinds), p=budget / budget.sum())]
        levels = sorted(level for (k, level), failing in weak.items() if k == kind and failing)
        level = levels[rng.integers(len(levels))]
        return Request(kind, level if level in tasks.levels(kind) else None, why=WHY)

    def weak(self) -> dict[Unit, bool]:
        """Every level that was met, and whether it is weak."""
        return {unit: is_weak(accuracy, self.most) for unit, accuracy in self.accuracy().items()}

    def accuracy(self) -> dict[Unit, list[float]]:
        """Share of right attempts in each part of the first phase in which a level was met."""
        return {
            unit: [float(right / tried) for right, tried in counts if tried]
            for unit, counts in sorted(self.tried.items())
        }

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        if self.progress >= self.first:
            return
        part = min(int(self.progress / self.first * self.parts), self.parts - 1)
        for group in (g for g in groups if g.episodes):
            unit = (group.task.kind, float(group.task.difficulty))
            counts = self.tried.setdefault(unit, np.zeros((self.parts, 2), np.int64))
            counts[part] += sum(e.correct for e in group.episodes), len(group.episodes)

    def report(self) -> dict[str, float]:
        """Levels that were met and that are weak, and each weak kind's part of the budget for them."""
        weak = self.weak()
        ratios = failure_ratios(weak)
        whole = sum(ratios.values())
        found = {"levels": float(len(weak)), "weak": float(sum(weak.values()))}
        return found | {f"weak/{kind}": ratio / whole for kind, ratio in ratios.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"tried": {unit: counts.copy() for unit, counts in self.tried.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tried = {unit: counts.copy() for unit, counts in state["tried"].items()}
