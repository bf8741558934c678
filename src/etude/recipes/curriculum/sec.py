"""SEC: the curriculum is a bandit that is paid in advantages."""

import math

import numpy as np

from etude.curriculum.arms import softmax
from etude.curriculum.bandit import Evolving, smoothed, taught
from etude.recipe import ByHand, Paper, Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

RECIPE = Recipe(
    name="sec",
    family="curriculum",
    alone=GRPO,
    n=2,
    paper=Paper("Self-Evolving Curriculum for LLM Reasoning", "2505.14970", 2025),
    idea="A group teaches most where about half of its attempts are right: there the advantages are largest. "
    "Each kind of task at each level is an arm, whose value is the recent size of the advantages it brought. "
    "Arms are drawn by their value, so the tasks get harder as the model gets better.",
    equation="p(c) = softmax(Q(c) / tau);  Q(c) <- (1 - alpha) Q(c) + alpha mean |A_i|",
    departures=(
        "|A| is that of the rewards standardised within their group, whatever credit the run uses; with "
        "curriculum.advantage=credit it is the mean |A| over the tokens of each sequence as credited",
        "groups that are drawn but not trained on count as they are",
        "an arm that was not drawn keeps its Q, as the equation reads; the released code lets it decay "
        "(curriculum.decay_absent=true)",
        "tau is 0.2, which the paper has for arms of kind and level together; it has 1.0 and 0.4 for levels alone",
    ),
    stages={"curriculum": stage(Evolving)},
    claim="Probability moves from easy to hard levels, and the hardest held-out level is solved more often than with uniform "
    "sampling at equal steps.",
    examples=(
        ByHand("half right: 2 sqrt(p (1 - p)) = 1", lambda: np.mean(taught(np.array([1.0, 1, 0, 0]))), 1.0),
        ByHand("1 of 4 right", lambda: np.mean(taught(np.array([1.0, 0, 0, 0]))), 3**0.5 / 2),
        ByHand("all right teaches nothing", lambda: taught(np.ones(4)), [0, 0, 0, 0]),
        ByHand(
            "alpha 0.5; the second arm was not drawn",
            lambda: smoothed(np.array([0.4, 0.6]), {0: 1.0}, 0.5),
            [0.7, 0.6],
        ),
        ByHand("and decays", lambda: smoothed(np.array([0.4, 0.6]), {0: 1.0}, 0.5, True), [0.7, 0.3]),
        ByHand("Q = 0 and tau log 3", lambda: softmax(np.array([0, 0.2 * math.log(3)]) / 0.2), [0.25, 0.75]),
    ),
)
