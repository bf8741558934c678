"""DAPO: GRPO with four changes for long answers."""

from etude.curriculum.gate import mixed_only
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.reward.shaping import overlong_share, soft_overlong
from etude.settings import stage

RECIPE = Recipe(
    name="dapo",
    base=GRPO,
    paper=Paper("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "2503.14476", 2025),
    idea="The clip is wider upwards, so that unlikely tokens can grow. Groups without differing outcomes are drawn anew. "
    "Every token counts alike, and answers near the length limit are punished softly.",
    equation="L = - sum_it min(rho A, clip(rho, 1-0.2, 1+0.28) A) / sum_i |y_i|, over groups with 0 < correct < G",
    departures=(
        "the overlong buffer is the last quarter of the length limit, where the paper has the last fifth",
    ),
    stages={
        "objective": stage(clipped, high=0.28, mean="token"),
        "select": stage(mixed_only),
        "reward": stage(soft_overlong),
    },
    examples=(
        ByHand("halfway into the buffer", lambda: overlong_share(56, 64, 16), 0.5),
        ByHand("below the buffer", lambda: overlong_share(48, 64, 16), 0.0),
        Reduction(
            "symmetric clip and sequence mean give GRPO on mixed groups",
            "grpo",
            {"objective.high": 0.2, "objective.mean": "sequence", "reward.penalty": 0.0},
        ),
    ),
)
