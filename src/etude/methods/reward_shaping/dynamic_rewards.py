"""Dynamic reward weighting: rewards gain weight by how they pull the policy's gradient."""

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
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.testing.examples import example_episode
from etude.types import Array, Episode, Group, Signal

ASPECTS = "accuracy+conciseness+format"


def aspects():
    """accuracy: the verdict's reward; conciseness: 1 - sampled tokens / limit; format: whether the answer ended by
    itself. `reward` is their mean."""

    def reward(episode: Episode) -> dict[str, float]:
        accuracy = verdict()(episode)["reward"]
        conciseness = 1 - float(episode.sampled.sum()) / episode.notes["limit"]
        own = (accuracy, conciseness, float(episode.stop == "end"))
        return {"reward": sum(own) / len(own), **dict(zip(ASPECTS.split("+"), own, strict=True))}

    return reward


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


MEASURED = (
    "the rewards are accuracy, conciseness (1 - length / limit) and format (the answer ended by itself)"
)
DYNAMIC = Recipe(
    name="dynamic_rewards",
    n=96,
    paper=Paper(
        "Learning to Optimize Multi-Objective Alignment Through Dynamic Reward Weighting", "2509.11452", 2025
    ),
    idea="Several rewards are added up, and weight moves to those that pull the policy where all of them together pull it. "
    "A reward that is nearly exhausted, or works against the rest, fades. "
    "The weights move by exponentiated gradient at the policy's own rate.",
    equation="w_k <- softmax(log w_k + (lr / lambda) <g_k, sum_j g_j>);  then GRPO on sum_k w_k r_k",
    departures=(
        MEASURED,
        "lambda is given as a share of the learning rate, lr / lambda = 0.1 as in the paper",
        "the KL to the starting policy (0.001 in the paper) is off: --set objective.beta=0.001",
    ),
    stages={"reward": stage(aspects), "credit": stage(Influence), "objective": stage(clipped, mean="token")},
    claim="On the front of accuracy against length it dominates fixed weights.",
    examples=(
        ByHand(
            "2 of 6 tokens, right",
            lambda: list(aspects()(example_episode(1.0, (1, 2))).values()),
            [8 / 9, 1, 2 / 3, 1],
        ),
        ByHand("no influence", lambda: np.exp(tilted(np.log([0.2, 0.8]), np.zeros(2), 1.0)), [0.2, 0.8]),
        ByHand(
            "log 2 more doubles the odds",
            lambda: np.exp(tilted(np.zeros(2), np.log([2, 1]), 1.0)),
            [2 / 3, 1 / 3],
        ),
        ByHand(
            "lambda endless", lambda: np.exp(tilted(np.log([0.2, 0.8]), np.array([9.0, 0]), 0.0)), [0.2, 0.8]
        ),
        Reduction(
            "a single reward is GRPO with a token mean",
            "grpo",
            {"credit.names": "accuracy"},
            {"objective.mean": "token"},
        ),
    ),
)


HYPERVOLUME = Recipe(
    name="hypervolume_rewards",
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

RECIPES = (DYNAMIC, HYPERVOLUME)
