"""TEA-RL (Light-IF): an entropy bonus at the tokens where entropy would collapse."""

import numpy as np

from etude.credit.entropy import bonuses, with_bonus
from etude.objective.entropy import clipped_with_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="tea_rl",
    family="objective",
    n=186,
    paper=Paper(
        "Light-IF: Endowing LLMs with Generalizable Reasoning via Preview and Self-Checking for Complex Instruction Following",
        "2508.03178",
        2025,
    ),
    idea="Entropy collapses at the tokens where a high probability meets a high advantage. "
    "A bonus on the exact entropy is spread over each answer by that covariance, so that it acts where collapse begins. "
    "The rest is GRPO with a wide clip.",
    equation="L = PPO's clip - mean_t sg[clip(alpha softmax_t((A_t - mean A)(log pi_t - mean log pi)), 0, u)] H_t",
    departures=(
        "GUESS: the weight of the bonus is detached, and taken from the log-probabilities recorded when sampling, "
        "so later passes over a batch keep it",
        "alpha = 0.1, not 10: the weights of an answer sum to alpha, and answers here have tens of tokens, not thousands",
        "the KL to the starting policy (0.001 in the paper) is off: --set objective.beta=0.001",
        "partial credit per constraint is the checker's own reward",
    ),
    stages={"credit": stage(with_bonus), "objective": stage(clipped_with_entropy)},
    claim="Entropy stays higher than with GRPO at equal accuracy.",
    examples=(
        ByHand(
            "equal covariances: alpha = length gives weight 1",
            lambda: bonuses([np.ones(4)], [-np.ones(4)], 4.0, 5.0),
            [np.ones(4)],
        ),
        ByHand(
            "A = 1 and -1, log pi = -1 and -3: both covary by 1",
            lambda: bonuses(
                [np.array([1.0]), np.array([-1.0])], [np.array([-1.0]), np.array([-3.0])], 10.0, 5.0
            ),
            [[5.0], [5.0]],
        ),
        Reduction(
            "without the bonus and on-policy: GRPO with a token mean",
            "grpo",
            {"credit.alpha": 0.0},
            {"objective.mean": "token"},
        ),
    ),
)
