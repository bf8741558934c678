"""Skill-It: draw what helps most where the losses are still high."""

import math

import numpy as np

from etude.curriculum.graph import SkillGraph, mixture
from etude.recipe import ByHand, Paper, Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

CHAIN = np.array([[1.0, 0.5], [0.0, 1.0]])  # the first skill helps the second


RECIPE = Recipe(
    name="skill_it",
    family="curriculum",
    alone=GRPO,
    n=36,
    paper=Paper(
        "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models",
        "2307.14430",
        2023,
    ),
    idea="Some skills help to learn others: one-step sums help two-step sums. Such help is written down as a graph. "
    "A skill is drawn the more often, the higher the recent losses of what it helps, itself included.",
    equation="p_i proportional to exp(eta sum_j A_ij Lbar_j);  Lbar_j = the sum of the last w losses on skill j;  at first Lbar = 1",
    departures=(
        "the graph is given, not estimated from short runs: by default a level helps the next level of its kind with 0.5; "
        "curriculum.graph takes other edges",
        "the loss of an arm is the share of its attempts since the last look that were wrong, before they were trained on; with "
        "curriculum.loss=nll it is that of fresh tasks' solutions, which imitation needs, as it makes no attempts",
        "an arm without attempts since the last look keeps its loss",
        "a look every 10 steps, where the paper has 500 to 1000",
    ),
    stages={"curriculum": stage(SkillGraph)},
    claim="On chained skills the loss of the last is lower than with uniform sampling at equal steps.",
    examples=(
        ByHand("eta = 0: uniform", lambda: mixture(CHAIN, np.array([3.0, 1.0]), 0.0), [0.5, 0.5]),
        ByHand(
            "A = I: softmax over the own losses",
            lambda: mixture(np.eye(2), np.array([0, 2 * math.log(3)]), 0.5),
            [0.25, 0.75],
        ),
        ByHand(
            "a helper of a lossy skill: sums 0 + 0.5 x 4 and 4",
            lambda: mixture(CHAIN, np.array([0.0, 4.0]), 0.5 * math.log(3)),
            [0.25, 0.75],
        ),
        ByHand("equal losses, equal columns", lambda: mixture(np.ones((3, 3)), np.ones(3), 0.5), [1 / 3] * 3),
    ),
)
