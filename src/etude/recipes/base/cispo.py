"""CISPO: the importance weight is clipped, no token loses its gradient."""

from etude.objective.policy import truncated_weight
from etude.recipe import Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

RECIPE = Recipe(
    name="cispo",
    base=GRPO,
    paper=Paper(
        "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention", "2506.13585", 2025
    ),
    idea="PPO's clip silences tokens whose ratio moved far, often the rare ones that start a new thought. "
    "Here the ratio is only a detached weight, bounded above. Every token keeps its gradient.",
    equation="L = - sum_it sg[min(rho_t, 1+e)] A_i log pi(y_it) / sum_i |y_i|",
    stages={"objective": stage(truncated_weight)},
    examples=(
        Reduction("on-policy it is GRPO with a token mean", "grpo", to_settings={"objective.mean": "token"}),
    ),
)
