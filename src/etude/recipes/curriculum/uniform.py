"""Every kind at every level in turn: what any curriculum has to beat."""

from etude.curriculum.fixed import Stratified
from etude.recipe import Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

RECIPE = Recipe(
    name="uniform",
    family="curriculum",
    alone=GRPO,
    idea="Every kind of task at every level comes as often as every other. "
    "All of them are drawn once, in an order made anew, before any is drawn again, so that chance favours none.",
    equation="p(c) = 1 / K, without replacement within a round of K",
    departures=(
        "the plain default draws from the mixture of the task source instead, which may weigh kinds differently",
    ),
    stages={"curriculum": stage(Stratified)},
)
