"""GSPO: one importance ratio per answer."""

from etude.objective.policy import sequence_clipped
from etude.recipe import Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

RECIPE = Recipe(
    name="gspo",
    base=GRPO,
    paper=Paper("Group Sequence Policy Optimization", "2507.18071", 2025),
    idea="The reward belongs to the whole answer, so the ratio should too: the geometric mean of the token ratios. "
    "It is clipped in a narrow band. All tokens of an answer share its fate.",
    equation="s_i = (pi(y_i)/pi_old(y_i))^(1/|y_i|);  L = - mean_i min(s_i A_i, clip(s_i, 1-3e-4, 1+4e-4) A_i)",
    stages={"objective": stage(sequence_clipped)},
    examples=(Reduction("on-policy the gradient is GRPO's", "grpo"),),
)
