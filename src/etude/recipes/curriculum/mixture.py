"""A fixed mixture of kinds and levels."""

from etude.curriculum.fixed import Mixture, shares
from etude.recipe import ByHand, Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

RECIPE = Recipe(
    name="mixture",
    family="curriculum",
    alone=GRPO,
    idea="Kinds of tasks are drawn with weights that you give and that never change. "
    "A kind's weight is shared evenly among its levels, or a level has a weight of its own.",
    equation="p(kind/level) = w(kind) / (number of its levels) + w(kind/level), normalised",
    departures=("without weights all kinds are equal",),
    stages={"curriculum": stage(Mixture)},
    examples=(
        ByHand("read from text", lambda: list(shares("sort=2, sum/0=1").values()), [2, 1]),
        ByHand("nothing given", lambda: len(shares("")), 0),
    ),
)
