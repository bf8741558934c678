"""AdaRFT: a target difficulty that follows the rewards.

Training draws the tasks nearest to one target, which rises while more than the wanted mean reward is earned and falls
while less is. Efficient Reinforcement Finetuning via Adaptive Curriculum Learning, arXiv 2504.05520.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from etude.curriculum.arms import ByArm, evenly, levels_of
from etude.fixtures.curricula import after_steps, attempts_at
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array, Group, Signal


class TargetDifficulty(ByArm):
    """Of every kind, the level nearest to the target T; kinds evenly."""

    def __init__(
        self,
        target_rate: Annotated[
            float,
            Setting("eta, most that the target moves in a step, as a share of the range", low=0, high=1),
        ] = 0.5,
        sensitivity: Annotated[
            float, Setting("alpha, how sharply the target answers to the reward", low=0)
        ] = 2.0,
        target_reward: Annotated[
            float, Setting("beta, mean reward at which the target rests", low=0, high=1)
        ] = 0.5,
        target_start: Annotated[
            float, Setting("where the target begins, as a share of the range", low=0, high=1)
        ] = 0.0,
    ) -> None:
        super().__init__("both")
        self.target_rate, self.sensitivity = target_rate, sensitivity
        self.target_reward, self.target_start = target_reward, target_start

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.levels = levels_of(self.arms)
        known = [level for found in self.levels.values() for _, level in found]
        self.low, self.high = min(known), max(known)
        self.target = self.low + self.target_start * (self.high - self.low)
        self.drawn_at = self.target  # T of the last draw

    def probabilities(self, context: Context) -> Array:
        self.drawn_at = self.target
        nearest = np.zeros(len(self.arms))
        for found in self.levels.values():
            nearest[min(found, key=lambda pair: abs(pair[1] - self.target))[0]] = 1
        return evenly(nearest)

    def why(self, k: int) -> str:
        return f"nearest to target {self.target:.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """T <- clip(T + eta tanh(alpha (mean reward - beta)), d_min, d_max)."""
        rewards = [e.reward for g in groups for e in g.episodes]
        if not rewards:
            return
        eta = self.target_rate * (self.high - self.low)
        move = eta * math.tanh(self.sensitivity * (float(np.mean(rewards)) - self.target_reward))
        self.target = min(max(self.target + move, self.low), self.high)

    def report(self) -> Mapping[str, float]:
        return {**super().report(), "target difficulty": self.drawn_at}

    def state_dict(self) -> dict[str, Any]:
        return {"target": self.target}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target = state["target"]


LEVELS = [("a", 1.0), ("a", 2.0), ("a", 3.0), ("a", 5.0), ("b", 1.0), ("b", 4.0)]


def _drawn(*rewards: Sequence[float], **settings: float) -> list[float]:
    """The target after steps that earned `rewards`, then the probabilities of `LEVELS` that go with it."""
    steps = [[attempts_at(("a", 1.0), earned)] if earned else [] for earned in rewards]
    found = dict(after_steps(RECIPE, LEVELS, *steps, settings=settings).report())
    return [found.pop("target difficulty"), *found.values()]


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
    manipulation=(Manipulated("a share moves by 0.1", r"curriculum\.[^ ]+", 0.1, read="range"),),
    examples=(
        ByHand(
            "all right: 1 + half of the range 4, times tanh(2 x 0.5)",
            lambda: _drawn([1, 1]),
            [1 + 2 * math.tanh(1), 0, 0, 0.5, 0, 0, 0.5],
        ),
        ByHand("half right: it stays", lambda: _drawn([1, 0], [0, 1]), [1, 0.5, 0, 0, 0, 0.5, 0]),
        ByHand(
            "from the middle, 3 of 4 wanted, 1 of 4 earned: 3 - 2 tanh(1)",
            lambda: _drawn([1, 0, 0, 0], target_start=0.5, target_reward=0.75),
            [3 - 2 * math.tanh(1), 0.5, 0, 0, 0, 0.5, 0],
        ),
        ByHand("it stays in the range", lambda: _drawn([1], [1], [1]), [5, 0, 0, 0, 0.5, 0, 0.5]),
        ByHand("below as well", lambda: _drawn([0]), [1, 0.5, 0, 0, 0, 0.5, 0]),
        ByHand("no attempts say nothing", lambda: _drawn([]), [1, 0.5, 0, 0, 0, 0.5, 0]),
    ),
)
