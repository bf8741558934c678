"""PRIME: a process reward that nobody labelled, learned beside the policy from outcomes alone."""

import numpy as np

from etude.credit.redistribution import implicit_rewards, process_advantages
from etude.curriculum.band import within
from etude.objective.policy import clipped
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="prime",
    family="credit",
    n=154,
    paper=Paper("Process Reinforcement through Implicit Rewards", "2502.01456", 2025),
    idea="A copy of the model learns to tell right answers from wrong ones by how much likelier than the starting model it finds them. "
    "That log-ratio, token by token, is a process reward that nobody had to label. "
    "It is added to the outcome, and learned anew on every step's attempts.",
    equation="q_t = beta (log pi_phi(y_t) - log pi_ref(y_t));  L_phi = BCE(sigmoid(sum_t q_t), R);  "
    "A_t = 5 sum_{s >= t} (q_s - mean of the others' mean q) / max |sum q| + 5 (r - mean of the others' r), whitened",
    departures=(
        "the reward model's learning rate is twice the policy's, as the paper's 1e-6 is twice its 5e-7",
    ),
    stages={
        "select": stage(within),
        "credit": stage(implicit_rewards),
        "objective": stage(clipped, mean="token"),
    },
    companions={"prm": Companion("copy", lr=2.0), "reference": Companion("start")},
    claim="Reaches a target accuracy with fewer attempts than RLOO, and a frozen reward model does worse than the online one.",
    examples=(
        ByHand(
            "rewards (1, 0) and (0): the others' means are 0 and 1/2",
            lambda: np.hstack(process_advantages([np.array([1.0, 0.0]), np.array([0.0])], False)),
            [1.0, 0.0, -0.5],
        ),
        ByHand(
            "as released: twice the distance to the mean of means, 1/4",
            lambda: np.hstack(process_advantages([np.array([1.0, 0.0]), np.array([0.0])], True)),
            [1.0, -0.5, -0.5],
        ),
        Reduction(
            "without the process part, on-policy: RLOO",
            "rloo",
            {
                "credit.process": 0,
                "credit.outcome": 1,
                "credit.whiten": False,
                "objective.mean": "sum",
                "select.low": 0,
                "select.high": 1,
            },
        ),
    ),
)
