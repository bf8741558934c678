"""Supervised fine-tuning on the tasks' own solutions."""

from etude.credit.imitate import demonstrations
from etude.objective.imitation import cross_entropy
from etude.recipe import Recipe, Reduction
from etude.rollout.demonstrate import shown_only
from etude.settings import stage

RECIPE = Recipe(
    name="sft",
    idea="Shows the model a worked solution and makes it likelier. Nothing is sampled. "
    "The solution is the task's `reference`, or its gold answer where there is none.",
    equation="L = - mean_t log pi(y*_t)",
    stages={
        "gather": stage(shown_only),
        "credit": stage(demonstrations),
        "objective": stage(cross_entropy),
    },
    needs=("answer",),
    examples=(
        Reduction(
            "HPT that imitates every task", "hpt", to_settings={"credit.gate": 1.0, "objective.entropy": 0.0}
        ),
    ),
)
