"""OTR: every token of a demonstration as a one-step episode of its own."""

import torch

from etude.credit.solutions import with_draws
from etude.objective.imitation import one_token, picked
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.sft import RECIPE as SFT
from etude.settings import stage

RECIPE = Recipe(
    name="otr",
    family="sft_rl",
    n=9,
    base=SFT,
    paper=Paper(
        "One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient", "2509.26313", 2025
    ),
    idea="At every position of a demonstration the model draws its next token many times over. "
    "A draw is rewarded where it hits the demonstration's token and punished a little where it misses. "
    "So imitation pulls as hard as the model already agrees, which leaves more of what it knew in place.",
    equation="L = - 1/T sum_t 1/K sum_j R(a_j) log pi(a_j|s_t),  a_j ~ pi^(1/kappa),  R = 1 if a_j = y*_t else beta",
    departures=(
        "guess: beta = -0.1 and kappa = 1.3 (the paper's values were not at hand)",
        "log pi is at the run's sampling temperature, 1 unless set otherwise, where the paper says 1",
    ),
    stages={"credit": stage(with_draws), "objective": stage(one_token)},
    claim="After fine-tuning on one family of tasks, OTR loses less accuracy on held-out families than SFT.",
    examples=(
        ByHand(
            "p = 1/4, 1/4, 1/2: where three uniforms fall",
            lambda: picked(torch.tensor([[0.25, 0.25, 0.5]]), torch.tensor([[0.1, 0.3, 0.9]])),
            [[0, 1, 2]],
        ),
        Reduction(
            "all 92 tokens drawn alike and hits alone rewarded: SFT over 92",
            "sft",
            {"credit.samples": 0, "objective.beta": 0.0, "objective.kappa": 1e9, "objective.mean": "token"},
            scale=1 / 92,
        ),
    ),
)
