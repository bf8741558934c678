"""Dynamic reward weighting: rewards gain weight by how they pull the policy's gradient."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from scipy.special import logsumexp

from etude.credit.example import attempt
from etude.credit.group import standardised
from etude.credit.outcome import Names, assigned, scores
from etude.credit.weigh import gradient
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.aspects import ASPECTS, aspects
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def moved(log_w: Array, influence: Array, rate: float) -> Array:
    """log softmax(log w + rate x s)."""
    power = log_w + rate * influence
    return power - logsumexp(power)


class Influence:
    """GRPO on sum_k w_k r_k. Before each update w_k grows with s_k = <g_k, sum_j g_j>, g_k the policy gradient of
    score k alone."""

    def __init__(
        self,
        names: Names = ASPECTS,
        rate: Annotated[float, Setting("learning rate of log w, as lr / lambda", low=0)] = 0.1,
    ) -> None:
        self.names, self.rate = names, rate
        self.log_w = moved(np.zeros(names.count("+") + 1), np.zeros(1), 0.0)

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        rows, objective = scores(groups, self.names), clipped(mean="token")
        alone = [assigned(groups, [standardised(r[k]) for r in rows]) for k in range(len(self.log_w))]
        pulls = torch.stack([gradient(objective, signals, context) for signals in alone])
        influence = (pulls @ pulls.sum(0)).double().numpy()
        rate = self.rate * context.learner.update.rate(context.step, context.progress)
        self.log_w = moved(self.log_w, influence, rate)
        return assigned(groups, [standardised(np.exp(self.log_w) @ r) for r in rows])

    def state_dict(self) -> dict[str, Any]:
        return {"log_w": self.log_w}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.log_w = state["log_w"]


MEASURED = (
    "the rewards are accuracy, conciseness (1 - length / limit) and format (the answer ended by itself)"
)
RECIPE = Recipe(
    name="dynamic_rewards",
    family="objective",
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
            lambda: list(aspects()(attempt(1.0, (1, 2))).values()),
            [8 / 9, 1, 2 / 3, 1],
        ),
        ByHand("no influence", lambda: np.exp(moved(np.log([0.2, 0.8]), np.zeros(2), 1.0)), [0.2, 0.8]),
        ByHand(
            "log 2 more doubles the odds",
            lambda: np.exp(moved(np.zeros(2), np.log([2, 1]), 1.0)),
            [2 / 3, 1 / 3],
        ),
        ByHand(
            "lambda endless", lambda: np.exp(moved(np.log([0.2, 0.8]), np.array([9.0, 0]), 0.0)), [0.2, 0.8]
        ),
        Reduction(
            "a single reward is GRPO with a token mean",
            "grpo",
            {"credit.names": "accuracy"},
            {"objective.mean": "token"},
        ),
    ),
)
