"""From easy to hard, by the clock."""

from etude.curriculum.fixed import EasyToHard, opened
from etude.recipe import ByHand, Paper, Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

RECIPE = Recipe(
    name="easy_to_hard",
    family="curriculum",
    alone=GRPO,
    paper=Paper("Curriculum Learning (Bengio et al., ICML)", "", 2009),
    idea="Training starts on the easiest level of every kind. Harder levels open one after the other as the budget is spent, "
    "whatever the model has learnt by then. What is open is drawn evenly.",
    equation="open levels of a kind = 1 + floor((L - 1) clip((progress - begin) / (end - begin), 0, 1))",
    departures=("a linear pace over the first half of the budget; levels are the generators' own",),
    stages={"curriculum": stage(EasyToHard)},
    examples=(
        ByHand(
            "five levels at 0, 1/8, 1/4, 1/2 of the budget",
            lambda: [opened(5, p, 0, 0.5) for p in (0, 0.125, 0.25, 0.5)],
            [1, 2, 3, 5],
        ),
        ByHand("begin = end: a switch", lambda: [opened(5, p, 0.3, 0.3) for p in (0.29, 0.3)], [1, 5]),
        ByHand("a single level is always open", lambda: [opened(1, p, 0, 1) for p in (0, 1)], [1, 1]),
    ),
)
