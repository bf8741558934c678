"""On-policy distillation: learn from a second model on your own answers."""

from etude.credit.imitate import unjudged
from etude.objective.imitation import reverse_kl
from etude.recipe import Paper, Recipe
from etude.rollout.table import optional_verdict
from etude.settings import stage

RECIPE = Recipe(
    name="distill",
    paper=Paper(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes", "2306.13649", 2023
    ),
    idea="The model writes; a teacher says how likely it finds each word. "
    "Every token is pushed towards the teacher's opinion of it, on the states that the student itself visits. "
    "The checker's verdict is only reported.",
    equation="grad = E_{y ~ pi} sum_t (log pi(y_t) - log teacher(y_t)) grad log pi(y_t)",
    departures=("the sampled-token (reverse KL) form, not the full-vocabulary divergence",),
    stages={
        "reward": stage(optional_verdict),
        "credit": stage(unjudged),
        "objective": stage(reverse_kl),
    },
    needs=("teacher",),
    defaults={"attempts": 1},
)
