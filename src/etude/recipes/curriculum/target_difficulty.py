"""AdaRFT: a target difficulty that follows the rewards."""

import math

from etude.curriculum.fixed import TargetDifficulty, moved
from etude.recipe import ByHand, Paper, Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

RECIPE = Recipe(
    name="target_difficulty",
    family="curriculum",
    alone=GRPO,
    paper=Paper("Efficient Reinforcement Finetuning via Adaptive Curriculum Learning", "2504.05520", 2025),
    idea="There is one target difficulty. It rises while more than half of the reward is earned and falls while less is. "
    "Every step trains on the tasks that lie nearest to it.",
    equation="T <- clip(T + eta tanh(alpha (mean reward - beta)), d_min, d_max);  draw the tasks with the least |d - T|",
    departures=(
        "difficulties are the generators' levels, where the paper has failure rates of a model from 0 to 100; eta is half of their range, "
        "as in the paper (50 of 100)",
        "of every kind the nearest level is drawn, kinds evenly, since a generator never runs out of tasks of one level",
    ),
    stages={"curriculum": stage(TargetDifficulty)},
    claim="A given accuracy is reached in fewer steps than with uniform sampling.",
    examples=(
        ByHand("all right: eta tanh(1) up", lambda: moved(1.0, 1.0, 2.0, 2.0, 0.5), 1 + 2 * math.tanh(1)),
        ByHand("half right: stays", lambda: moved(3.0, 0.5, 2.0, 2.0, 0.5), 3.0),
    ),
)
