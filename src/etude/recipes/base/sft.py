"""Supervised fine-tuning on the tasks' own solutions."""

from etude.credit.imitate import demonstrations
from etude.objective.imitation import cross_entropy
from etude.recipe import Recipe
from etude.rollout.demonstrate import demonstration
from etude.rollout.table import given
from etude.settings import stage

RECIPE = Recipe(
    name="sft",
    idea="Shows the model a worked solution and makes it likelier. Nothing is sampled. "
    "The solution is the task's `reference`, or its gold answer where there is none.",
    equation="L = - mean_t log pi(y*_t)",
    stages={
        "rollout": stage(demonstration),
        "reward": stage(given),
        "credit": stage(demonstrations),
        "objective": stage(cross_entropy),
    },
    needs=("answer",),
    defaults={"attempts": 1},
)
