"""CISPO: the importance weight is clipped, no token loses its gradient."""

from __future__ import annotations

from typing import Annotated

from etude.batch import Batch
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.models.outputs import Outputs
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective
from etude.recipe import Paper, Recipe, Reduction
from etude.settings import Setting, stage


def truncated_weight(
    high: Annotated[float, Setting("upper bound of the importance weight, above 1", low=0)] = 4.0,
    low: Annotated[float, Setting("lower bound of the importance weight, below 1", low=0, high=1)] = 1.0,
) -> Objective:
    """CISPO: -sg[clip(rho_t, 1-low, 1+high)] A_t log pi_theta(y_t): the weight is clipped, no token loses its
    gradient (arXiv 2506.13585)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp().detach()
        weight = ratio.clamp(1 - low, 1 + high)
        return -weight * batch.advantage * out.logp, {"clip": (ratio != weight).float(), "ratio": ratio}

    return objective(Term("policy", loss, MEANS["token"], proportional=True))


RECIPE = Recipe(
    name="cispo",
    base=GRPO,
    paper=Paper(
        "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention", "2506.13585", 2025
    ),
    idea="PPO's clip silences tokens whose ratio moved far, often the rare ones that start a new thought. "
    "Here the ratio is only a detached weight, bounded above. Every token keeps its gradient.",
    equation="L = - sum_it sg[min(rho_t, 1+e)] A_i log pi(y_it) / sum_i |y_i|",
    stages={"objective": stage(truncated_weight)},
    examples=(
        Reduction("on-policy it is GRPO with a token mean", "grpo", to_settings={"objective.mean": "token"}),
    ),
)
