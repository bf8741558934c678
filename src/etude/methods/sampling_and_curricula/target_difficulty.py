"""AdaRFT: a target difficulty that follows the rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.curriculum.arms import ByArm, evenly
from etude.curriculum.fixed import levels_of
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import Setting, stage
from etude.types import Array, Group


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


RECIPE = Recipe(
    name="target_difficulty",
    default_base=GRPO,
    paper=Paper("Efficient Reinforcement Finetuning via Adaptive Curriculum Learning", "2504.05520", 2025),
    idea="There is one target difficulty. It rises while more than half of the reward is earned and falls while less is. "
    "Every step trains on the tasks that lie nearest to it.",
    equation="T <- clip(T + eta tanh(alpha (mean reward - beta)), d_min, d_max);  draw the tasks with the least |d - T|",
    departures=(
        "difficulties are the generators' levels, where the paper has failure rates of a model from 0 to 100; eta is half of their range, "
        "as in the paper (50 of 100)",
        "of every kind the nearest level is drawn, kinds evenly, since a generator never runs out of tasks of one level",
    ),
    stages={"curriculum": stage(TargetDifficulty)},
    claim="A given accuracy is reached in fewer steps than with uniform sampling.",
    examples=(
        ByHand("all right: eta tanh(1) up", lambda: moved(1.0, 1.0, 2.0, 2.0, 0.5), 1 + 2 * math.tanh(1)),
        ByHand("half right: stays", lambda: moved(3.0, 0.5, 2.0, 2.0, 0.5), 3.0),
    ),
)
