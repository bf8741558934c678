"""Entropy-SFT: fine-tune on the tokens whose loss is more than the model's own uncertainty."""

import numpy as np

from etude.credit.entropy import largest, surprising
from etude.recipe import ByHand, Recipe, Reduction
from etude.recipes.base.sft import RECIPE as SFT
from etude.recipes.objective.tea_rl import RECIPE as TEA_RL
from etude.settings import stage

RECIPE = Recipe(
    name="entropy_sft",
    base=SFT,
    family="objective",
    n=186,
    paper=TEA_RL.paper,
    idea="Fine-tuning need not make the model surer of what it already says. "
    "Only tokens are trained whose loss is large compared with the model's own uncertainty there. "
    "The surest fifth is left alone, which leaves entropy for the RL that follows.",
    equation="L = mean of CE_t over the share q of tokens with the largest CE_t - c H_t",
    departures=("tokens are chosen over the whole step, once, before its first update",),
    stages={"credit": stage(surprising)},
    claim="The policy's entropy stays higher than after SFT at equal training accuracy.",
    examples=(
        ByHand(
            "half of four, over two answers",
            lambda: np.concatenate(largest([np.array([3.0, 1]), np.array([2.0, 0])], 0.5)),
            [1, 0, 1, 0],
        ),
        Reduction("with all tokens it is SFT", "sft", {"credit.share": 1.0}),
    ),
)
