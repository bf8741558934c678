"""RLOO: REINFORCE with the mean reward of the other answers as baseline.

Ahmadian et al. (arXiv 2402.14740). Credit: A_i = r_i - mean of r over the other answers to the same task,
which the answer itself does not influence, so the gradient is unbiased; r_i is the reward less the price of
leaving the start. Objective: that of REINFORCE, a whole answer as one action.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from etude.credit.group import assigned, leave_one_out
from etude.credit.kl_penalty import KLPrice, drift
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.objective.policy import plain
from etude.recipe import ByHand, Credited, OffPolicy, Paper, Recipe, Reduction
from etude.settings import stage
from etude.stages import Context
from etude.types import Array, Group, Signal


class LeaveOneOut:
    """A_i = r_i - mean of r over the other answers, r_i = R_i - kl_weight sum_t log pi_old(y_it) / pi_start(y_it)."""

    def __init__(self, kl_weight: KLPrice = 0.0) -> None:
        self.kl_weight = kl_weight
        self.reads = frozenset({"reference"} if kl_weight else ())

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        return assigned(groups, [leave_one_out(g.rewards - self._prices(g, context)) for g in groups])

    def _prices(self, group: Group, context: Context) -> Array:
        if not self.kl_weight:
            return np.zeros(len(group.episodes))
        return self.kl_weight * np.array([row.sum() for row in drift(group.episodes, context)])


def _priced() -> list[float]:
    """Advantages of a right answer of two tokens that the start gave log-probabilities -2 and -3, and of a wrong one of
    one token at -1, where the policy has -1 for each; at a price of 1/4."""
    context = GivenContext(auxiliary={"reference": GivenModel(logp=[-2.0, -3.0, -1.0])})
    group = example_answers((1.0, (2, 3)), (0.0, (4,)))
    return beyond_prompt(given_stage(RECIPE, "credit", kl_weight=0.25)([group], context))


RECIPE = Recipe(
    name="rloo",
    paper=Paper(
        "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback",
        "2402.14740",
        2024,
    ),
    published_lr=1e-6,
    idea="Each answer is compared with the average of the other answers to the same task. "
    "Leaving the answer itself out makes the baseline independent of it, so the gradient is unbiased. "
    "The whole answer is one action.",
    equation="L = - mean_i sum_t (r_i - mean_{j != i} r_j) log pi(y_it),  r_i = R_i - beta log pi(y_i)/pi_start(y_i)",
    departures=(
        "beta (credit.kl_weight) = 0 by default, where the paper has 0.03: a run keeps no reference model unless asked to",
    ),
    stages={"credit": stage(LeaveOneOut), "objective": stage(plain)},
    unchecked="its advantage acts on every mixed group, and the gate 'mixed' counts those",
    examples=(
        Credited(
            "1 of 3 right: 1 - 0, 0 - 1/2; a lone answer has no baseline",
            [[1.0, 0, 0], [1.0]],
            [[1.0, -0.5, -0.5], [0]],
        ),
        ByHand("R - (1 + 2)/4 = 1/4 and 0 - 0: +-1/4", _priced, [0.25, 0.25, -0.25]),
        OffPolicy(
            "no ratio, no clip; summed over two tokens, mean over two answers",
            ratio=(3.0, 1.0, 0.2),
            advantage=(1.0, 1.0, -0.5),
            lengths=(2, 1),
            loss=(-(-1 + log(3)) - -1 + 0.5 * (-1 + log(0.2))) / 2,
            gradient=(-0.5, -0.5, 0.25),
        ),
        Reduction("G/(G-1) times REINFORCE with the group mean (G = 4)", "reinforce", scale=4 / 3),
    ),
)
