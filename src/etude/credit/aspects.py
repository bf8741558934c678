"""Several rewards of one answer: weights that move by gradient, and a factor for steps that extend their front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from scipy.special import logsumexp

from etude.credit.group import centred, standardised
from etude.credit.outcome import Names, assigned, scores
from etude.credit.weigh import gradient
from etude.objective.policy import clipped
from etude.reward.aspects import ASPECTS
from etude.settings import Setting
from etude.types import Array, Group, Signal


def tilted(log_w: Array, influence: Array, rate: float) -> Array:
    """log softmax(log w + rate x s)."""
    power = log_w + rate * influence
    return power - logsumexp(power)


class Influence:
    """GRPO on sum_k w_k r_k. Before each update w_k grows with s_k = <g_k, sum_j g_j>, g_k the policy gradient of
    score k alone (arXiv 2509.11452)."""

    def __init__(
        self,
        names: Names = ASPECTS,
        rate: Annotated[float, Setting("learning rate of log w, as lr / lambda", low=0)] = 0.1,
    ) -> None:
        self.names, self.rate = names, rate
        self.log_w = tilted(np.zeros(names.count("+") + 1), np.zeros(1), 0.0)

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        rows, objective = scores(groups, self.names), clipped(mean="token")
        alone = [assigned(groups, [standardised(r[k]) for r in rows]) for k in range(len(self.log_w))]
        pulls = torch.stack([gradient(objective, signals, context) for signals in alone])
        influence = (pulls @ pulls.sum(0)).double().numpy()
        rate = self.rate * context.learner.update.rate(context.step, context.progress)
        self.log_w = tilted(self.log_w, influence, rate)
        return assigned(groups, [standardised(np.exp(self.log_w) @ r) for r in rows])

    def state_dict(self) -> dict[str, Any]:
        return {"log_w": self.log_w}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.log_w = state["log_w"]


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
    mean scores extend what was reached before, seen from those of the first step (arXiv 2509.11452)."""

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
