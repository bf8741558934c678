"""On-policy distillation: learn from a second model on your own answers."""

import math

import torch

from etude.credit.imitate import unjudged
from etude.objective.imitation import bounded, reverse_kl
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.table import optional_verdict
from etude.settings import stage

RECIPE = Recipe(
    name="distill",
    paper=Paper(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes", "2306.13649", 2023
    ),
    idea="The model writes; a teacher says how likely it finds each word. "
    "Every token is pushed towards the teacher's opinion of it, on the states that the student itself visits. "
    "The checker's verdict is only reported.",
    equation="grad = E_{y ~ pi} sum_t (log pi(y_t) - log teacher(y_t)) grad log pi(y_t)",
    departures=("the sampled-token (reverse KL) form, not the full-vocabulary divergence",),
    stages={
        "reward": stage(optional_verdict),
        "credit": stage(unjudged),
        "objective": stage(reverse_kl),
    },
    needs=("teacher",),
    defaults={"attempts": 1},
    examples=(
        ByHand(
            "said with 1/2, teacher 1/8: pushed down by ln 4; the other way round: up by ln 4",
            lambda: bounded(torch.tensor([0.5, 0.125]).log() - torch.tensor([0.125, 0.5]).log(), 10.0),
            [math.log(4), -math.log(4)],
        ),
        ByHand("bounded at 1 nat", lambda: bounded(torch.tensor([3.0, -3.0, 0.5]), 1.0), [1.0, -1.0, 0.5]),
    ),
)
