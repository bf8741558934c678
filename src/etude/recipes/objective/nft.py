"""NFT: learn from wrong answers by supervised learning."""

from etude.credit.example import credited
from etude.credit.outcome import rated
from etude.curriculum.gate import mixed_only
from etude.objective.off_policy import negative_aware
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="nft",
    family="objective",
    n=61,
    paper=Paper(
        "Bridging Supervised Learning and Reinforcement Learning in Math Reasoning", "2505.18116", 2025
    ),
    idea="The sampling policy is a mixture of a policy that is always right and one that is always wrong, in the proportion of the pass rate. "
    "Right answers train the first directly; wrong answers train it through the second. "
    "Both are maximum likelihood: there is no reward in the loss.",
    equation="right: -w log R_t;  wrong: -w log max(N_t, e), N_t = (1 - r R_t)/(1 - r);  R_t = pi(y_t)/pi_old(y_t)",
    departures=(
        "the constant divisor is 64 tokens per episode instead of 1000 per batch share; it only scales the rate",
    ),
    stages={"select": stage(mixed_only), "credit": stage(rated), "objective": stage(negative_aware)},
    claim="At equal samples NFT ends above rejection-sampling fine-tuning.",
    examples=(
        ByHand("1 of 4 right", lambda: credited(rated(), [1, 0, 0, 0]), [0.75, -0.25, -0.25, -0.25]),
        ByHand(
            "w = odds standardises",
            lambda: credited(rated("odds"), [1, 0, 0, 0]),
            [3**0.5, *[-(3**-0.5)] * 3],
        ),
        Reduction("on-policy with w = 1-r it is Dr. GRPO", "dr_grpo"),
    ),
)
