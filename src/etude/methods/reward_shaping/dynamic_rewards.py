"""Dynamic reward weighting: several rewards, whose weights, or whose common factor, follow the training.

Lu et al. (arXiv 2509.11452). Reward: accuracy, conciseness and format. Credit, dynamic_rewards: GRPO's
advantage of the weighted sum; before each update, weight moves to the rewards whose policy gradient agrees
with the sum of all. Credit, hypervolume_rewards: the mean of the rewards, times a factor that grows with the
hypervolume by which this step extends what was reached before. Objective: PPO's clipped surrogate, a mean
over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, tanh
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from etude.batch import Batch
from etude.credit.group import assigned, centred, standardised
from etude.credit.outcome import Names, scores
from etude.credit.weigh import gradient
from etude.fixtures.examples import example_episode, example_group
from etude.objective.policy import clipped
from etude.objective.terms import Objective
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.stages import Context, Reward
from etude.types import Array, Episode, Group, Signal

ASPECTS = "accuracy+conciseness+format"


def aspects() -> Reward:
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
    score k alone."""

    def __init__(
        self,
        names: Names = ASPECTS,
        weight_rate: Annotated[float, Setting("learning rate of log w, as lr / lambda", low=0)] = 0.1,
    ) -> None:
        self.names, self.rate = names, weight_rate
        self.log_w = tilted(np.zeros(names.count("+") + 1), np.zeros(1), 0.0)

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        rows, objective = scores(groups, self.names), clipped(mean="token")
        alone = [assigned(groups, [standardised(r[k]) for r in rows]) for k in range(len(self.log_w))]
        pulls = torch.stack([gradient(objective, signals, context) for signals in alone])
        influence = (pulls @ pulls.sum(0)).cpu().double().numpy()
        rate = self.rate * context.learner.update.rate(context.step, context.progress)
        self.log_w = tilted(self.log_w, influence, rate)
        return assigned(groups, [standardised(np.exp(self.log_w) @ r) for r in rows])

    def report(self) -> dict[str, float]:
        """The weight of every score."""
        names = self.names.split("+")
        return {f"weight {n}": float(w) for n, w in zip(names, np.exp(self.log_w), strict=True)}

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
    """r_i - mean r of the mean of the scores, times
    factor_base + factor_gain tanh(h): h is the hypervolume by which this step's
    mean scores extend what was reached before, seen from those of the first step."""

    def __init__(
        self,
        names: Names = ASPECTS,
        factor_base: Annotated[float, Setting("factor of a step that extends nothing", low=0)] = 0.5,
        factor_gain: Annotated[float, Setting("what a large extension adds to the factor", low=0)] = 1.5,
    ) -> None:
        self.names, self.base, self.gain = names, factor_base, factor_gain
        self.front: list[list[float]] = []  # the first step's point, then those that extended it
        self.factor = factor_base  # of the last step

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        rows = scores(groups, self.names)
        played = [r for r in rows if r.size]
        h = self.extend(np.concatenate(played, 1).mean(1).tolist()) if played else 0.0
        self.factor = float(self.base + self.gain * np.tanh(h))
        return assigned(groups, [self.factor * centred(r.mean(0)) for r in rows])

    def extend(self, point: list[float]) -> float:
        """The hypervolume that `point` adds, which is then part of the front."""
        first = self.front[0] if self.front else point
        h = hypervolume([*self.front, point], first) - hypervolume(self.front, first)
        if h > 0 or not self.front:
            self.front.append(point)
        return h

    def report(self) -> dict[str, float]:
        return {"factor": self.factor}

    def state_dict(self) -> dict[str, Any]:
        return {"front": self.front}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.front = state["front"]


def weights() -> Array:
    """The weights of two scores after one step on answers scored 1, 0 and 0.5, 0.5, where the gradient of a loss is the
    advantages themselves and the policy's rate is 1."""
    group = example_group([1.0, 0.0])
    group = replace(group, episodes=tuple(e.with_scores({"style": 0.5}) for e in group.episodes))

    def advantages(objective: Objective, batch: Batch) -> Tensor:
        return batch.advantage

    learner = SimpleNamespace(gradient=advantages, update=SimpleNamespace(rate=lambda step, progress: 1.0))
    context = SimpleNamespace(learner=learner, sampling=None, step=0, progress=0.0)
    credit = DYNAMIC.stages["credit"].but(names="reward+style", weight_rate=0.5).build("credit")
    credit([group], context)
    found: Array = np.exp(credit.log_w)
    return found


def rewarded(reward: float, length: int, stop: str = "end") -> list[float]:
    """Reward, accuracy, conciseness and format of an answer of `length` tokens at a limit of 6."""
    scored = DYNAMIC.stages["reward"].build("reward")(example_episode(reward, range(length), stop=stop))
    return [scored[name] for name in ("reward", *ASPECTS.split("+"))]


def extended(*steps: Sequence[float]) -> list[float]:
    """The advantages that the recipe's credit gives in the last of several steps, of one group each, for one score."""
    credit = HYPERVOLUME.stages["credit"].but(names="reward").build("credit")
    for rewards in steps:
        signals = credit([example_group(rewards)], None)
    return [float(s.advantage[0]) for s in signals]


CLIP = OffPolicy(
    "praise above the clip, within it, below it; blame above, within, below; every token counts alike",
    ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
    advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
    lengths=(1, 5),
    loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 6,
    gradient=(0, -1.1 / 6, -0.5 / 6, 1.5 / 6, 0.9 / 6, 0),
)
A = 0.5 / 0.5001  # GRPO's advantage of the right one of two answers
MEASURED = (
    "the rewards are accuracy, conciseness (1 - length / limit) and format (the answer ended by itself)"
)
DYNAMIC = Recipe(
    name="dynamic_rewards",
    paper=Paper(
        "Learning to Optimize Multi-Objective Alignment Through Dynamic Reward Weighting", "2509.11452", 2025
    ),
    published_lr=1e-6,
    idea="Several rewards are added up, and weight moves to those that pull the policy where all of them together pull it. "
    "A reward that is nearly exhausted, or works against the rest, fades. "
    "The weights move by exponentiated gradient at the policy's own rate.",
    equation="w_k <- softmax(log w_k + (lr / lambda) <g_k, sum_j g_j>);  then GRPO on sum_k w_k r_k",
    departures=(
        MEASURED,
        "lambda is given as a share of the learning rate, lr / lambda = 0.1 as in the paper",
        "the KL to the starting policy (0.001 in the paper) is off: --set objective.kl_weight=0.001",
    ),
    stages={"reward": stage(aspects), "credit": stage(Influence), "objective": stage(clipped, mean="token")},
    claim="On the front of accuracy against length it dominates fixed weights.",
    manipulation=(Manipulated("a weight moves by a tenth", r"credit\.weight .*", 0.1, read="range"),),
    examples=(
        ByHand(
            "right in 2 of 6 tokens; wrong, and cut off at 6",
            lambda: [rewarded(1.0, 2), rewarded(0.0, 6, "length")],
            [[8 / 9, 1, 2 / 3, 1], [0, 0, 0, 0]],
        ),
        ByHand(
            "g = (A, -A) and 0, so s = 2 A^2 and 0; w = softmax of s / 2",
            weights,
            [1 / (1 + exp(-(A**2))), 1 - 1 / (1 + exp(-(A**2)))],
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
        CLIP,
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
    paper=DYNAMIC.paper,
    published_lr=1e-6,
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
    manipulation=(Manipulated("the factor moves by a tenth", r"credit\.factor", 0.1, read="range"),),
    examples=(
        ByHand("two boxes that overlap: 2x1 + 1x3 - 1x1", lambda: hypervolume([[2, 1], [1, 3]], [0, 0]), 4.0),
        ByHand("in three dimensions", lambda: hypervolume([[1, 1, 2], [2, 2, 1]], [0, 0, 0]), 5.0),
        Credited(
            "the first step extends nothing: half of r - mean",
            [[1.0, 0.0]],
            [[0.25, -0.25]],
            settings={"credit.names": "reward"},
        ),
        ByHand(
            "mean reward 1/4, then 1/2: h = 1/4",
            lambda: extended([1.0, 0, 0, 0], [1.0, 0]),
            [0.5 * (0.5 + 1.5 * tanh(0.25)), -0.5 * (0.5 + 1.5 * tanh(0.25))],
        ),
        ByHand(
            "back to 1/4: nothing new",
            lambda: extended([1.0, 0, 0, 0], [1.0, 0], [1.0, 0, 0, 0])[0],
            0.5 * 0.75,
        ),
        CLIP,
        Reduction(
            "a constant factor and a single reward, summed: REINFORCE",
            "reinforce",
            {
                "credit.names": "accuracy",
                "credit.factor_base": 1.0,
                "credit.factor_gain": 0.0,
                "objective.mean": "sum",
            },
        ),
    ),
)

RECIPES = (DYNAMIC, HYPERVOLUME)
