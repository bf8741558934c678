"""Reinforce-Ada: as many attempts as a task needs until they can be told apart."""

import numpy as np

from etude.credit.group import centred
from etude.credit.normalise import pool_mean
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.adaptive import Adaptive, chosen
from etude.settings import stage


def _kept(*pool: float) -> list[float]:
    """The advantages of the four attempts of a pool that are kept."""
    return centred(np.array(pool))[chosen([r > 0.7 for r in pool], 4)].tolist()


RECIPE = Recipe(
    name="reinforce_ada",
    family="curriculum",
    n=94,
    paper=Paper(
        "Reinforce-Ada: An Adaptive Sampling Framework for Reinforce-Style LLM Training", "2510.04996", 2025
    ),
    idea="A task whose attempts all fail, or all succeed, teaches nothing. "
    "So tasks are sampled in rounds, and one that has shown a right attempt gets no more. "
    "A small, balanced part of its pool is trained on, against the mean of the whole pool.",
    equation="A_i = r_i - mean_{j in pool} r_j for the n kept;  L = - sum_it min(rho A, clip(rho, 1-0.2, 1+0.28) A) / sum_i |y_i|",
    departures=(
        "guess: of each side the attempts sampled first are kept",
        "the bonus on entropy (1e-4 in the paper, 0 in the script) is left out",
        "the run's reward and pass rate are those of all attempts, of which hard tasks have more: gather/first_round is unbiased",
        "it replaces gather, credit and objective, so it goes with recipes that choose tasks or play them, not with other losses",
    ),
    stages={
        "gather": stage(Adaptive),
        "credit": stage(pool_mean),
        "objective": stage(clipped, high=0.28, mean="token"),
    },
    defaults={"attempts": 4},
    claim="The share of tasks without a gradient falls and accuracy rises faster than with four attempts at every task.",
    examples=(
        ByHand("1 right of 8, four kept", lambda: _kept(0, 0, 0, 0, 0, 1, 0, 0), [-0.125] * 3 + [0.875]),
        ByHand("5 right of 8", lambda: _kept(1, 1, 1, 0, 0, 1, 0, 1), [0.375] * 2 + [-0.625] * 2),
        Reduction(
            "one round of n attempts: GRPO without std",
            "grpo",
            {"gather.rounds": 1, "gather.size": 4},
            {"credit.std": False, "objective.mean": "token"},
        ),
    ),
)
