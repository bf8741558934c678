"""T-REG: DPO, told by the model itself which tokens made the difference."""

import numpy as np

from etude.credit.pairs import contrasted_pairs, token_reward
from etude.objective.preference import regularised
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.dpo import RECIPE as DPO
from etude.settings import stage

RECIPE = Recipe(
    name="t_reg",
    family="credit",
    n=152,
    base=DPO,
    paper=Paper("T-REG: Preference Optimization with Token-Level Reward Regularization", "2412.02685", 2024),
    idea="The starting model is asked, in thought, to make a response better, and to make it worse. "
    "Tokens that it would rather write in the better version get a positive reward, the others a negative one. "
    "DPO is held to agree with these rewards, so that its preference settles on the tokens that matter.",
    equation="r_t = sigmoid(log ref(y_t|x_better) - log ref(y_t|x_worse)) - 1/2;  "
    "L = L_DPO - alpha sg[sigmoid(beta (d- - d+))] sum over y+, y- of sum_t beta r_t log pi(y_t)",
    departures=(
        "pairs are sampled anew from the current policy at every step, where the paper has best and worst of 5 by a reward model",
        "guess: the pair's weight is held fixed (objective.detach), beta = 0.1, alpha is the middle one of the three tried",
        "the wording of the two revision prompts is ours",
    ),
    stages={"credit": stage(contrasted_pairs), "objective": stage(regularised)},
    claim="On pairs that differ in one step, the implicit reward gap lies on the differing tokens more than under DPO.",
    examples=(
        ByHand(
            "three times likelier when better; equal; three times when worse",
            lambda: token_reward(np.log([3.0, 1, 1]), np.log([1.0, 1, 3])),
            [0.25, 0.0, -0.25],
        ),
        Reduction("alpha 0: DPO", "dpo", {"objective.alpha": 0.0}),
        Reduction(
            "the same prompt twice: DPO", "dpo", {"credit.worse": "Revise.", "credit.better": "Revise."}
        ),
    ),
)
