"""On-policy distillation: learn from a second model on your own answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from etude.batch import Batch
from etude.credit.group import constant
from etude.models.outputs import Outputs
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.group_rollout import optional_verdict
from etude.settings import Setting, stage
from etude.types import Group, Signal


def unjudged():
    """Every sampled token, without an advantage: for losses that need no verdict."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return [constant(e, 0.0) for g in groups for e in g.episodes]

    return credit


def bounded(gap: Tensor, clip: float | None) -> Tensor:
    """log pi - log teacher, the weight of a token's score function: positive where the policy says too much."""
    return gap if clip is None else gap.clamp(-clip, clip)


def reverse_kl(
    clip: Annotated[float | None, Setting("bound on |log pi - log teacher| per token", "nats", low=0)] = 10.0,
) -> Objective:
    """On-policy distillation: the policy gradient of KL(pi || teacher), whose per-token reward is
    log teacher(y_t) - log pi(y_t), at tokens that the policy sampled."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        gap = out.logp.detach() - batch.extras["teacher"]
        return bounded(gap, clip) * out.logp, {"reverse_kl": gap}

    return objective(Term("distill", loss, MEANS["token"]), reads={"teacher"})


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
    defaults={"group_size": 1},
    examples=(
        ByHand(
            "said with 1/2, teacher 1/8: pushed down by ln 4; the other way round: up by ln 4",
            lambda: bounded(torch.tensor([0.5, 0.125]).log() - torch.tensor([0.125, 0.5]).log(), 10.0),
            [math.log(4), -math.log(4)],
        ),
        ByHand("bounded at 1 nat", lambda: bounded(torch.tensor([3.0, -3.0, 0.5]), 1.0), [1.0, -1.0, 0.5]),
    ),
)
