"""Hypervolume-guided rewards: a step counts more when it reaches what no step reached before."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred
from etude.credit.outcome import Names, assigned, scores
from etude.objective.policy import clipped
from etude.recipe import ByHand, Recipe, Reduction
from etude.recipes.objective.dynamic_rewards import MEASURED
from etude.recipes.objective.dynamic_rewards import RECIPE as DYNAMIC
from etude.reward.aspects import ASPECTS, aspects
from etude.settings import Setting, stage
from etude.types import Group, Signal


def hypervolume(points: Sequence[Sequence[float]], origin: Sequence[float]) -> float:
    """Volume of the union of the boxes between `origin` and each point above it, sliced along the last axis."""
    inside = [p for p in points if all(x > o for x, o in zip(p, origin, strict=True))]
    if not inside or len(origin) == 1:
        return max((p[0] for p in inside), default=origin[0]) - origin[0]
    above = sorted(inside, key=lambda p: -p[-1])
    volume, floors = 0.0, [*(p[-1] for p in above[1:]), origin[-1]]
    for i, (p, low) in enumerate(zip(above, floors, strict=True)):
        volume += (p[-1] - low) * hypervolume([q[:-1] for q in above[: i + 1]], origin[:-1])
    return volume


class Front:
    """r_i - mean r of the mean of the scores, times base + gain tanh(h): h is the hypervolume by which this step's
    mean scores extend what was reached before, seen from those of the first step."""

    def __init__(
        self,
        names: Names = ASPECTS,
        base: Annotated[float, Setting("factor of a step that extends nothing", low=0)] = 0.5,
        gain: Annotated[float, Setting("what a large extension adds to the factor", low=0)] = 1.5,
    ) -> None:
        self.names, self.base, self.gain = names, base, gain
        self.front: list[list[float]] = []  # the first step's point, then those that extended it

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        rows = scores(groups, self.names)
        played = [r for r in rows if r.size]
        h = self.extend(np.concatenate(played, 1).mean(1).tolist()) if played else 0.0
        factor = self.base + self.gain * np.tanh(h)
        return assigned(groups, [factor * centred(r.mean(0)) for r in rows])

    def extend(self, point: list[float]) -> float:
        """The hypervolume that `point` adds, which is then part of the front."""
        first = self.front[0] if self.front else point
        h = hypervolume([*self.front, point], first) - hypervolume(self.front, first)
        if h > 0 or not self.front:
            self.front.append(point)
        return h

    def state_dict(self) -> dict[str, Any]:
        return {"front": self.front}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.front = state["front"]


RECIPE = Recipe(
    name="hypervolume_rewards",
    family="objective",
    n=96,
    paper=DYNAMIC.paper,
    idea="A step counts more when the policy has just reached a combination of rewards that no earlier policy had. "
    "What it adds to the volume under the front of all combinations so far sets a factor on the reward. The weights themselves stay.",
    equation="A_i = (0.5 + 1.5 tanh h)(r_i - mean r), h = HV(front + point) - HV(front)",
    departures=(
        MEASURED,
        "the point is the mean over the step's own attempts, which the policy before the update wrote, instead of a validation set",
        "no division by a standard deviation, in which the factor would cancel",
    ),
    stages={"reward": stage(aspects), "credit": stage(Front), "objective": stage(clipped, mean="token")},
    claim="On the front of accuracy against length it dominates a constant factor.",
    examples=(
        ByHand("two boxes that overlap: 2x1 + 1x3 - 1x1", lambda: hypervolume([[2, 1], [1, 3]], [0, 0]), 4.0),
        ByHand("in three dimensions", lambda: hypervolume([[1, 1, 2], [2, 2, 1]], [0, 0, 0]), 5.0),
        Reduction(
            "a constant factor and a single reward, summed: REINFORCE",
            "reinforce",
            {"credit.names": "accuracy", "credit.base": 1.0, "credit.gain": 0.0, "objective.mean": "sum"},
        ),
    ),
)
