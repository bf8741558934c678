"""DPO on pairs made from the model's own groups, online."""

import math

from etude.credit.pairs import preference_pairs
from etude.objective.preference import dpo_loss, pair_loss
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import stage

RECIPE = Recipe(
    name="dpo",
    paper=Paper(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", "2305.18290", 2023
    ),
    idea="Within each group the best and the worst answer form a pair. "
    "The policy learns to prefer the better one, relative to where it started. No reward scale matters, only order.",
    equation="L = - mean log sigmoid(beta [log pi(y+)/ref(y+) - log pi(y-)/ref(y-)])",
    departures=(
        "pairs are sampled anew from the current policy at every step, as in online DPO (arXiv 2402.04792)",
    ),
    stages={"credit": stage(preference_pairs), "objective": stage(dpo_loss)},
    examples=(
        ByHand("no preference yet", lambda: float(pair_loss(0.0, 0.1)), math.log(2)),
        ByHand(
            "a margin of 10 nats at beta 0.1", lambda: float(pair_loss(10.0, 0.1)), math.log1p(math.exp(-1))
        ),
    ),
)
