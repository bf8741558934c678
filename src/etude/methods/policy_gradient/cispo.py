"""CISPO: the importance weight is clipped, and no token loses its gradient.

MiniMax-M1 (arXiv 2506.13585). Credit: GRPO's. Objective: REINFORCE, each token weighed by its detached,
clipped ratio.
"""

from __future__ import annotations

from math import log
from typing import Annotated

from etude.batch import Batch
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.models.outputs import Outputs
from etude.objective.policy import Low
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective
from etude.recipe import Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage


def truncated_weight(
    clip_high: Annotated[float, Setting("how far the ratio may rise above 1", low=0)] = 4.0,
    clip_low: Low = 1.0,
) -> Objective:
    """-sg[clip(rho_t, 1 - clip_low, 1 + clip_high)] A_t log pi_theta(y_t), mean over tokens; sg: no gradient."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp().detach()
        weight = ratio.clamp(1 - clip_low, 1 + clip_high)
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
    manipulation=(Manipulated("tokens move: a ratio 0.005 nats from 1", "kl_sampler", 0.005),),
    examples=(
        OffPolicy(
            "weights 5 (bound), 3 and 0.1 for praise and blame alike; log pi = -1 + log rho",
            ratio=(6.0, 3.0, 0.1, 6.0, 0.1),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0),
            loss=(
                -5 * (log(6) - 1)
                - 3 * (log(3) - 1)
                - 0.1 * (log(0.1) - 1)
                + 5 * (log(6) - 1)
                + 0.1 * (log(0.1) - 1)
            )
            / 5,
            gradient=(-5 / 5, -3 / 5, -0.1 / 5, 5 / 5, 0.1 / 5),
        ),
        OffPolicy(
            "between 0.9 and 1.3: 0.5 counts as 0.9, 2 as 1.3, 1.2 as itself",
            ratio=(0.5, 2.0, 1.2),
            advantage=(1.0, -1.0, 1.0),
            loss=(-0.9 * (log(0.5) - 1) + 1.3 * (log(2) - 1) - 1.2 * (log(1.2) - 1)) / 3,
            gradient=(-0.9 / 3, 1.3 / 3, -1.2 / 3),
            settings={"objective.clip_low": 0.1, "objective.clip_high": 0.3},
        ),
        Reduction("on-policy it is GRPO with a token mean", "grpo", to_settings={"objective.mean": "token"}),
    ),
)
