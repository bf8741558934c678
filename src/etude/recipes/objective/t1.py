"""T1: many hot samples, an entropy bonus, and an anchor that follows the policy."""

from typing import Annotated

import numpy as np

from etude.credit.group import leave_one_out
from etude.credit.kl_penalty import anchored
from etude.objective.entropy import entropy_bonus
from etude.objective.policy import MeanOver, plain
from etude.objective.terms import Objective
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.reward.shaping import repeats, tidy
from etude.settings import Setting, stage


def exploring(
    alpha: Annotated[float, Setting("weight of the entropy bonus", low=0)] = 0.001, mean: MeanOver = "token"
) -> Objective:
    """-A_t log pi_theta(y_t) - alpha H_t."""
    return plain(mean) + entropy_bonus(alpha)


RECIPE = Recipe(
    name="t1",
    family="objective",
    n=189,
    paper=Paper(
        "Advancing Language Model Reasoning through Reinforcement Learning and Inference Scaling",
        "2501.11651",
        2025,
    ),
    idea="Exploration is bought in three ways: many attempts per task at a temperature above 1, a bonus on entropy, "
    "and an anchor for the KL penalty that trails the policy as a moving average instead of holding it at the start. "
    "Answers that repeat themselves or do not end are punished.",
    equation="A_it = r_i - mean_{j != i} r_j - beta log pi(y_it)/pi_ref(y_it);  L = - mean A log pi - alpha mean H;  theta_ref <- m theta_ref + (1-m) theta",
    departures=(
        "GUESS: the KL penalty is the sampled log-ratio, detached, within the advantage; normalising over the batch is "
        "credit.whiten, off",
        "GUESS: alpha = 0.001, beta = 0.01, m = 0.99; token mean; no clipping",
        "attempts per task are the run's own (the paper goes up to 64); its SFT stage is a run of sft before",
    ),
    stages={"reward": stage(tidy), "credit": stage(anchored), "objective": stage(exploring)},
    companions={"reference": Companion("copy")},
    defaults={"temperature": 1.2},
    confidence="guess",
    claim="More attempts per task at an equal number of updates raise accuracy, and keep the KL lower at equal reward.",
    examples=(
        ByHand("two attempts: r_1 - r_2", lambda: leave_one_out(np.array([1.0, -1.0])), [2.0, -2.0]),
        ByHand("1 2 1 2 1: the run 1 2 occurs twice", lambda: repeats(np.array([1, 2, 1, 2, 1]), 2), 2),
        Reduction(
            "without bonus, penalty and anchor it is RLOO",
            "rloo",
            {"objective.alpha": 0.0, "objective.mean": "sum", "credit.beta": 0.0, "reward.penalty": 0.0},
        ),
    ),
)
