"""DA-DLER: a length limit that depends on how hard the task is."""

from etude.credit.example import group
from etude.curriculum.gate import by_difficulty
from etude.recipe import ByHand, Recipe, Reduction
from etude.recipes.objective.dler import RECIPE as DLER
from etude.settings import stage

RECIPE = Recipe(
    name="da_dler",
    base=DLER,
    family="objective",
    n=45,
    paper=DLER.paper,
    idea="DLER with a limit that depends on the task. Tasks that are mostly solved must be solved in half the length. "
    "The others keep the whole length.",
    equation="L(q) = L_short where mean_group R' > 0.5, else L_long",
    stages={"select": stage(by_difficulty)},
    claim="Answers get shorter than with DLER at the same accuracy.",
    examples=(
        ByHand(
            "an easy group is held to 3 of 6 tokens",
            lambda: by_difficulty()([group([1, 1, 0], [3, 4, 2])], None)[0].rewards,
            [1, 0, 0],
        ),
        Reduction("one limit for all tasks is DLER", "dler", {"select.short": 1.0}),
    ),
)
