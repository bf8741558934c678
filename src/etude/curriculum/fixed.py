"""Curricula by rule: evenly, in a fixed mixture, from easy to hard, and at a difficulty that follows the rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.curriculum.arms import Arms, ByArm, evenly
from etude.errors import UserError
from etude.settings import Setting
from etude.types import Array, Group, Request


class Stratified(ByArm):
    """Every arm as often as every other: all of them, in an order drawn anew, again and again."""

    def chances(self, context: Any) -> Array:
        return evenly(np.ones(len(self.arms)))

    def next(self, n: int, context: Any) -> list[Request]:
        self.now = self.chances(context)
        rng, size = context.rng("arms", context.drawn), len(self.arms)
        places = [divmod(context.drawn + i, size) for i in range(n)]
        order = {
            cycle: seeds.generator(context.seed, "cycle", cycle).permutation(size) for cycle, _ in places
        }
        return [
            self.arms[int(order[c][place])].request(rng, f"every arm in turn, round {c + 1}")
            for c, place in places
        ]


class Mixture(ByArm):
    """Arms by fixed weights."""

    def __init__(
        self,
        weights: Annotated[
            str,
            Setting(
                "shares of kinds or arms, as sort=2,sum/0=1; what is not named gets none; empty: equal kinds"
            ),
        ] = "",
    ) -> None:
        super().__init__("both")
        self.given = shares(weights)

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        names = self.given or dict.fromkeys([n.rpartition("/")[0] for n in self.arms.names], 1.0)
        self.weights = np.zeros(len(self.arms))
        for name, weight in names.items():
            found = self.arms.named(name)
            self.weights[found] += weight / len(found)

    def chances(self, context: Any) -> Array:
        return self.weights / self.weights.sum()


def shares(text: str) -> dict[str, float]:
    """`sort=2,sum=1` as numbers. UserError where it does not read so."""
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not 0 < weight < math.inf:
            raise UserError(
                f"curriculum.weights has '{part}'; it must read KIND=WEIGHT with a weight above 0"
            )
        found[name.strip()] = weight
    return found


def levels_of(arms: Arms) -> list[tuple[str, list[tuple[int, float]]]]:
    """Of every kind, its arms with their levels, rising. UserError where no kind has a second level."""
    kinds: dict[str, list[tuple[int, float]]] = {}
    for k, arm in enumerate(arms):
        ((kind, level),) = arm.options
        assert level is not None  # an arm of kind and level is one such pair
        kinds.setdefault(kind, []).append((k, level))
    if all(len(found) < 2 for found in kinds.values()):
        raise UserError(
            f"this curriculum chooses among levels, and each of these kinds has a single one: {', '.join(arms.names)}; "
            "lab has several, so have generators whose level is not fixed"
        )
    return [(kind, sorted(found, key=lambda f: f[1])) for kind, found in kinds.items()]


def opened(levels: int, progress: float, begin: float, end: float) -> int:
    """How many of a kind's levels are open: 1 until `begin`, all from `end`, linear between."""
    share = (progress - begin) / (end - begin) if end > begin else float(progress >= end)
    return 1 + math.floor((levels - 1) * min(max(share, 0.0), 1.0) + 1e-9)


class EasyToHard(ByArm):
    """Levels open as the budget is spent; what is open is drawn evenly."""

    def __init__(
        self,
        begin: Annotated[
            float, Setting("progress until which only the easiest level is open", low=0, high=1)
        ] = 0.0,
        end: Annotated[float, Setting("progress from which all levels are open", low=0, high=1)] = 0.5,
    ) -> None:
        super().__init__("both")
        if end < begin:
            raise UserError(
                f"curriculum.end is {end:g}; it must lie in [curriculum.begin, 1] = [{begin:g}, 1]"
            )
        self.begin, self.end = begin, end

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.levels = levels_of(self.arms)

    def chances(self, context: Any) -> Array:
        chosen = np.zeros(len(self.arms))
        self.words = f"open at {context.progress:.0%} of the budget"
        for _, found in self.levels:
            for k, _ in found[: opened(len(found), context.progress, self.begin, self.end)]:
                chosen[k] = 1
        return evenly(chosen)

    def why(self, k: int) -> str:
        return self.words


def moved(target: float, reward: float, rate: float, sensitivity: float, wanted: float) -> float:
    """T + rate tanh(sensitivity (reward - wanted))."""
    return target + rate * math.tanh(sensitivity * (reward - wanted))


class TargetDifficulty(ByArm):
    """Of every kind, the level nearest to a target that rises with the mean reward and falls with it."""

    def __init__(
        self,
        rate: Annotated[
            float, Setting("most that the target moves in a step, as a share of the range", low=0, high=1)
        ] = 0.5,
        sensitivity: Annotated[float, Setting("how sharply the target answers to the reward", low=0)] = 2.0,
        reward: Annotated[float, Setting("mean reward at which the target rests", low=0, high=1)] = 0.5,
        start: Annotated[
            float, Setting("where the target begins, as a share of the range", low=0, high=1)
        ] = 0.0,
    ) -> None:
        super().__init__("both")
        self.rate, self.sensitivity, self.reward, self.start = rate, sensitivity, reward, start

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.levels = levels_of(self.arms)
        every = [level for _, found in self.levels for _, level in found]
        self.low, self.high = min(every), max(every)
        self.target = self.low + self.start * (self.high - self.low)
        self.chosen_at = self.target

    def chances(self, context: Any) -> Array:
        self.chosen_at = self.target
        chosen = np.zeros(len(self.arms))
        for _, found in self.levels:
            chosen[min(found, key=lambda f: abs(f[1] - self.target))[0]] = 1
        return evenly(chosen)

    def why(self, k: int) -> str:
        return f"nearest to target {self.target:.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        rewards = [e.reward for g in groups for e in g.episodes]
        if rewards:
            rate = self.rate * (self.high - self.low)
            target = moved(self.target, float(np.mean(rewards)), rate, self.sensitivity, self.reward)
            self.target = min(max(target, self.low), self.high)

    def report(self) -> dict[str, float]:
        return {**super().report(), "target difficulty": self.chosen_at}

    def state_dict(self) -> dict[str, Any]:
        return {"target": self.target}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target = state["target"]
