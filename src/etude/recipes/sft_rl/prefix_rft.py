"""Prefix-RFT: one attempt in each group begins with a piece of the demonstration."""

import numpy as np

from etude.credit.prefix import hybrid_advantages, prefixed
from etude.objective.hybrid import dual_clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.prefix import given_share, one_prefixed
from etude.settings import stage

RECIPE = Recipe(
    name="prefix_rft",
    family="sft_rl",
    n=262,
    paper=Paper("Blending Supervised and Reinforcement Fine-Tuning with Prefix Sampling", "2507.01679", 2025),
    idea="In each group one attempt is begun by the demonstration and finished by the model. "
    "If that turns out better than the ordinary attempts, the given words are reinforced as if they were its own, where it was least sure of them. "
    "The given part shrinks over the run.",
    equation="y = y*_{<L} + continuation, L = floor(l |y*|), l ~ U(low_t, high);  A_prefix = r - mean r_plain on top-k% entropy, "
    "A_rest = r, A_plain = r_i - mean r_plain;  dual-clipped, / constant",
    departures=(
        "guess: low_t ends at 0.05, high is 0.95 and 20% of the prefix is kept (from memory in the catalogue)",
        "baselines as in the released code; credit.joined=true has the paper's text, where the hybrid joins the group",
    ),
    stages={"gather": stage(one_prefixed), "credit": stage(prefixed), "objective": stage(dual_clipped)},
    needs=("answer", "text"),
    claim="Beats RL alone on tasks that no attempt solves, and SFT on held-out tasks.",
    examples=(
        ByHand("halfway, low_t is midway between 0 and 0.8", lambda: given_share(0.0, 0.0, 0.8, 0.5), 0.4),
        ByHand(
            "plain 1, 0 and a right hybrid: +-1/2, prefix 1/2, continuation 1",
            lambda: np.hstack(hybrid_advantages(np.array([1.0, 0.0]), 1.0, False)),
            [0.5, -0.5, 0.5, 1.0],
        ),
        Reduction("nothing given: Dr. GRPO", "dr_grpo", {"gather.high": 0.0, "objective.entropy": 0.0}),
    ),
)
