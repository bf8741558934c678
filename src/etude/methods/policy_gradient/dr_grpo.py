"""Dr. GRPO: GRPO without its two biases."""

from __future__ import annotations

from etude.credit.group import group_mean
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import High, Length, Low, clipped
from etude.objective.terms import Objective, averaged, per_constant
from etude.recipe import Paper, Recipe, Reduction
from etude.settings import stage


def clipped_constant(
    low: Low = 0.2,
    high: High = 0.2,
    length: Length = 64.0,
) -> Objective:
    """The clipped surrogate summed over tokens and divided by a constant, not by the answer's length."""
    return averaged(clipped(low, high), per_constant(length))


RECIPE = Recipe(
    name="dr_grpo",
    base=GRPO,
    paper=Paper("Understanding R1-Zero-Like Training: A Critical Perspective", "2503.20783", 2025),
    idea="Dividing by the group's standard deviation favours very easy and very hard tasks. "
    "Dividing by the answer's own length favours long wrong answers. Both divisions are dropped; a constant replaces the length.",
    equation="A_i = r_i - mean r;  L = - 1/(G L) sum_i sum_t min(rho A, clip(rho, 1-e, 1+e) A)",
    stages={"credit": stage(group_mean), "objective": stage(clipped_constant)},
    examples=(
        Reduction(
            "with a constant length of 1 it is REINFORCE when on-policy",
            "reinforce",
            {"objective.length": 1.0},
        ),
        Reduction("the constant only scales", "dr_grpo", {"objective.length": 32.0}, scale=2.0),
    ),
)
