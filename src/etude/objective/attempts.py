"""Losses for text that had help when it was sampled, or that another wrote into the policy's answer."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from etude.objective.hybrid import imitation
from etude.objective.policy import Beta, Dual, High, Length, Low, MeanOver, clipped, plain
from etude.objective.terms import (
    MEANS,
    Objective,
    Term,
    TokenLoss,
    beside,
    k3,
    log_ratio,
    objective,
    per_constant,
    surrogate,
)
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch

Distil = Annotated[float, Setting("weight of the second attempt learnt without its help", low=0)]


def weighted(ratio: Tensor, advantage: Tensor) -> Tensor:
    """-rho_t A_t."""
    return -advantage * ratio


def importance_weighted(mean: MeanOver = "sum") -> Objective:
    """-rho_t A_t, not clipped."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp()
        return weighted(ratio, batch.advantage), {"ratio": ratio}

    return objective(Term("policy", loss, MEANS[mean], proportional=True))


def praised(coefficient: float, mean: MeanOver = "sum", row: str = "distilled") -> Objective:
    """coefficient x -A_t log pi_theta on the weight row `row`: imitation weighted by a reward, divided as the policy's
    term is."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.advantage * out.logp

    if not coefficient:
        return objective()
    return objective(Term(row, loss, beside(MEANS[mean]), row, coefficient, proportional=True))


def weighted_kl(mean: MeanOver = "sum") -> Objective:
    """k3 estimate of KL(pi || pi_ref), each token times its weight in the row "kl"."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        kl = k3(out.logp, batch.extras["reference"])
        return kl, {"kl_reference": kl}

    return objective(Term("kl", loss, MEANS[mean], weight="kl"), reads={"reference"})


def shaped(p: Tensor, gamma: float) -> Tensor:
    """p / (p + gamma): its gradient lets rare tokens learn faster than p itself would."""
    return p / (p + gamma)


def taught(p: Tensor, advantage: Tensor, slack: float, rare: float) -> Tensor:
    """p / (sg[p] + slack), its denominator kept in [0.001, 1]; p / sg[p] where blame falls on a rare token."""
    soft = p / (p.detach() + slack).clamp(1e-3, 1.0)
    return torch.where((advantage < 0) & (p < rare), p / p.detach().clamp(min=1e-20), soft)


# ---- stages ------------------------------------------------------------------------------------------


def reinforce_and_keep(
    low: Low = 0.2, high: High = 0.28, mean: MeanOver = "sum", distil: Distil = 1.0, beta: Beta = 0.0
) -> Objective:
    """PPO's clip on what was said, and -max(r_2, 0) log pi(y_2 | x) on what worked (ERL, arXiv 2602.13949)."""
    return clipped(low, high, mean, beta=beta) + praised(distil, mean)


def reinforce_near_start(mean: MeanOver = "sum") -> Objective:
    """-A log pi, and the KL to the start under the weights that credit gave it (SCoRe, arXiv 2409.12917)."""
    return plain(mean) + weighted_kl(mean)


def with_self_distillation(
    distil: Annotated[float, Setting("weight of the self-distillation", low=0)] = 0.1, mean: MeanOver = "sum"
) -> Objective:
    """Importance-weighted policy gradient of both turns, and `distil` x that of the second attempt without help
    (RLTF-SD, arXiv 2602.02482)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return weighted(log_ratio(out, batch).exp(), batch.advantage)

    base = importance_weighted(mean)
    return (
        base + objective(Term("distilled", loss, beside(MEANS[mean]), "distilled", distil, True))
        if distil
        else base
    )


def with_feedback_model(
    feedback: Annotated[float, Setting("weight of predicting the critique", low=0)] = 0.1,
    mean: MeanOver = "sum",
) -> Objective:
    """Importance-weighted policy gradient of both turns, and cross-entropy on the critique
    (RLTF-FM, arXiv 2602.02482)."""
    return importance_weighted(mean) + imitation(feedback)


def clipless_and_shaped(
    length: Length = 64.0,
    gamma: Annotated[float, Setting("constant of f(p) = p / (p + gamma) on refinements", low=0.001)] = 0.1,
) -> Objective:
    """-A rho on originals, -A f(pi) on the refinement; summed over tokens, over a constant length
    (Critique-GRPO, arXiv 2506.03106)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        own = log_ratio(out, batch).exp()
        ratio = torch.where(batch.extras["refined"] > 0, shaped(out.logp.exp(), gamma), own)
        return weighted(ratio, batch.advantage)

    return objective(Term("policy", loss, per_constant(length), proportional=True))


def clipped_and_taught(
    low: Low = 0.2,
    high: High = 0.2,
    dual: Dual = 3.0,
    slack: Annotated[
        float, Setting("g, added to sg[pi] below a teacher's token", low=-0.1, high=0.1)
    ] = -0.001,
    rare: Annotated[
        float, Setting("probability below which blame takes the plain ratio", low=0, high=1)
    ] = 0.01,
    mean: MeanOver = "token",
) -> Objective:
    """PPO's clip on the student's tokens, -A pi / (sg[pi] + g) on the teacher's (ThinkTuning, arXiv 2508.07616)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        own = surrogate(log_ratio(out, batch).exp(), batch.advantage, low, high, dual)
        theirs = -batch.advantage * taught(out.logp.exp(), batch.advantage, slack, rare)
        return torch.where(batch.extras["guidance"] > 0, theirs, own)

    return objective(Term("policy", loss, MEANS[mean], proportional=True))
