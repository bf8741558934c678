"""Losses for text that had help when it was sampled, or that another wrote into the policy's answer."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, k3, log_ratio, objective
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch

Distil = Annotated[float, Setting("weight of the second attempt learnt without its help", low=0)]


def importance_weighted(mean: MeanOver = "sum") -> Objective:
    """-rho_t A_t, not clipped."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp()
        return -ratio * batch.advantage, {"ratio": ratio}

    return objective(Term("policy", loss, MEANS[mean], proportional=True))


def praised(coefficient: float, mean: MeanOver = "sum", row: str = "distilled") -> Objective:
    """coefficient x -A_t log pi_theta on the weight row `row`: imitation weighted by a reward."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.advantage * out.logp

    if not coefficient:
        return objective()
    return objective(Term(row, loss, MEANS[mean], row, coefficient, proportional=True))


def weighted_kl(mean: MeanOver = "sum") -> Objective:
    """k3 estimate of KL(pi || pi_ref), each token times its weight in the row "kl"."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        kl = k3(out.logp, batch.extras["reference"])
        return kl, {"kl_reference": kl}

    return objective(Term("kl", loss, MEANS[mean], weight="kl"), reads={"reference"})


def shaped(p: Tensor, gamma: float) -> Tensor:
    """p / (p + gamma): its gradient lets rare tokens learn faster than p itself would."""
    return p / (p + gamma)
