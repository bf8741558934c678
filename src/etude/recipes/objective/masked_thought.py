"""Masked thought: supervised fine-tuning on solutions with holes in them."""

from etude.credit.solutions import ramp, with_holes
from etude.objective.imitation import cross_entropy_with_holes
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.sft import RECIPE as SFT
from etude.settings import stage

RECIPE = Recipe(
    name="masked_thought",
    base=SFT,
    family="objective",
    n=127,
    paper=Paper(
        "Masked Thought: Simply Masking Partial Reasoning Steps Can Improve Mathematical Reasoning Learning of Language Models",
        "2403.02178",
        2024,
    ),
    idea="The model reads the solution with some tokens replaced, and must still predict all the right ones. "
    "It can no longer lean on the last few words and has to look back at the question. "
    "The share of replaced tokens grows from 0 over the first two thirds of training.",
    equation="L = - mean_t log pi(y_t | x, m(y_<t)), m replaces each token with probability p",
    departures=(
        "the mask token is the model's end token, as most models have no other",
        "with several passes over one batch, all see the same holes",
    ),
    stages={"credit": stage(with_holes), "objective": stage(cross_entropy_with_holes)},
    claim="On chains of arithmetic with few solutions, test accuracy is higher than SFT's at equal epochs and the training likelihood lower.",
    examples=(
        ByHand("a third of the way up", lambda: ramp(0.22, 0.4, 0.66), 0.4 / 3),
        ByHand("after the warm-up", lambda: ramp(0.9, 0.4, 0.66), 0.4),
        Reduction("without holes it is SFT", "sft", {"credit.share": 0.0}),
    ),
)
