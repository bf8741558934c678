"""On-policy distillation (arXiv 2306.13649): the policy samples, and a teacher's log-probability of every sampled token
is its reward. The gradient is that of the reverse KL(pi || teacher), on the states that the student itself visits; no
verdict is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from etude.batch import Batch
from etude.credit.group import constant
from etude.models.outputs import Outputs
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.recipe import Credited, OffPolicy, Paper, Recipe
from etude.rollout.group_rollout import optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal


def unjudged() -> Credit:
    """Every sampled token, without an advantage: the loss needs no verdict."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return [constant(e, 0.0) for g in groups for e in g.episodes]

    return credit


def reverse_kl(
    gap_clip: Annotated[
        float | None, Setting("bound on |log pi - log teacher| per token", "nats", low=0)
    ] = 10.0,
) -> Objective:
    """sg[log pi(y_t) - log teacher(y_t)] log pi(y_t), a token mean: positive, so pushed down, where the policy says
    too much."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        gap = out.logp.detach() - batch.extras["teacher"]
        bounded = gap if gap_clip is None else gap.clamp(-gap_clip, gap_clip)
        return bounded * out.logp, {"reverse_kl": gap}

    return objective(Term("distill", loss, MEANS["token"]), reads={"teacher"})


RECIPE = Recipe(
    name="distill",
    paper=Paper(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes", "2306.13649", 2023
    ),
    published_lr=3e-4,
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
    unchecked="every token is pulled towards the teacher's distribution, whatever the policy does",
    examples=(
        Credited("no verdict counts", [[1.0, 0.0]], [[0.0, 0.0]]),
        # log pi = -1, -1, -1 and -15; gaps 2, -1/2, 19 and -14, the last two bounded at 10.
        OffPolicy(
            "said too much, too little, and both beyond the bound",
            ratio=(1.0, 1.0, 1.0, math.exp(-14)),
            advantage=(0.0, 0.0, 0.0, 0.0),
            extras={"teacher": (-3.0, -0.5, -20.0, -1.0)},
            loss=(2 * -1 - 0.5 * -1 + 10 * -1 - 10 * -15) / 4,
            gradient=(2 / 4, -0.5 / 4, 10 / 4, -10 / 4),
        ),
        OffPolicy(
            "without a bound",
            ratio=(1.0,),
            advantage=(0.0,),
            extras={"teacher": (-20.0,)},
            loss=-19.0,
            gradient=(19.0,),
            settings={"objective.gap_clip": None},
        ),
    ),
)
