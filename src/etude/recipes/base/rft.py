"""Rejection-sampling fine-tuning, also known as expert iteration: imitate your own right answers."""

from etude.credit.example import group
from etude.credit.imitate import right_answers
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import stage

THREE = [group([1, 0, 1], [2, 1, 2])]  # right, wrong, and the first again
RECIPE = Recipe(
    name="rft",
    paper=Paper(
        "Scaling Relationship on Learning Mathematical Reasoning with Large Language Models",
        "2308.01825",
        2023,
    ),
    idea="Samples several answers, keeps the right ones, and trains on them as if they were demonstrations. "
    "The sampler is the current policy, so each step is one round of expert iteration. Wrong answers teach nothing.",
    equation="L = - mean_t log pi(y_t), over tokens of distinct correct answers",
    departures=(
        "one round per step, from the current weights, where the paper starts each round from the base model",
    ),
    stages={"credit": stage(right_answers), "objective": stage(cross_entropy)},
    examples=(
        ByHand(
            "right, wrong, the same again", lambda: [s.episode.index for s in right_answers()(THREE)], [0]
        ),
        ByHand("repeats kept", lambda: [s.episode.index for s in right_answers(False)(THREE)], [0, 2]),
    ),
)
