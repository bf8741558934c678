"""Dr. GRPO: GRPO without its two biases.

Liu et al. (arXiv 2503.20783). Credit: A_i = r_i - mean r, not divided by the group's standard deviation,
which favours very easy and very hard tasks. Objective: the clipped surrogate divided by a constant, not by
the answer's own length, which favours long wrong answers.
"""

from __future__ import annotations

from etude.credit.group import advantage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import High, Length, Low, clipped
from etude.objective.terms import Objective, averaged, per_constant
from etude.recipe import Credited, OffPolicy, Paper, Recipe, Reduction
from etude.settings import stage


def clipped_constant(clip_low: Low = 0.2, clip_high: High = 0.2, length_divisor: Length = 64.0) -> Objective:
    """-1/(G L) sum_i sum_t min(rho A, clip(rho, 1-e, 1+e) A), L = length_divisor."""
    return averaged(clipped(clip_low, clip_high), per_constant(length_divisor))


RECIPE = Recipe(
    name="dr_grpo",
    base=GRPO,
    paper=Paper("Understanding R1-Zero-Like Training: A Critical Perspective", "2503.20783", 2025),
    published_lr=1e-6,
    idea="Dividing by the group's standard deviation favours very easy and very hard tasks. "
    "Dividing by the answer's own length favours long wrong answers. Both divisions are dropped; a constant replaces the length.",
    equation="A_i = r_i - mean r;  L = - 1/(G L) sum_i sum_t min(rho A, clip(rho, 1-e, 1+e) A)",
    stages={"credit": stage(advantage), "objective": stage(clipped_constant)},
    unchecked="two divisions are left out, in every mixed group; the gate 'mixed' counts those",
    examples=(
        Credited("1 of 4 right", [[1.0, 0, 0, 0]], [[0.75, -0.25, -0.25, -0.25]]),
        OffPolicy(
            "two answers, each divided by 64; praise above the clip, within, below; blame above, within, below",
            ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            lengths=(1, 5),
            loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 128,
            gradient=(0, -1.1 / 128, -0.5 / 128, 1.5 / 128, 0.9 / 128, 0),
        ),
        OffPolicy(
            "unequal bounds, L = 1: 1.25 lies within, 0.75 beyond",
            ratio=(1.25, 1.3, 0.75),
            advantage=(1.0, 1.0, -1.0),
            loss=-1.25 - 1.28 + 0.8,
            gradient=(-1.25, 0, 0),
            settings={"objective.clip_high": 0.28, "objective.length_divisor": 1.0},
        ),
        Reduction(
            "with a constant length of 1 it is REINFORCE when on-policy",
            "reinforce",
            {"objective.length_divisor": 1.0},
        ),
        Reduction("the constant only scales", "dr_grpo", {"objective.length_divisor": 32.0}, scale=2.0),
    ),
)
