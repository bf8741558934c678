"""Losses towards given tokens: cross-entropy on demonstrations, distillation from a teacher."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch


def cross_entropy(mean: MeanOver = "token") -> Objective:
    """-log pi_theta(y_t) on the tokens with an "imitation" weight: A = 1, reference probability pi_theta."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp

    return objective(Term("imitation", loss, MEANS[mean], weight="imitation"))


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
