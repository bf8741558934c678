"""REINFORCE on data of older policies, with PPO's clip read as a mask: which tokens keep their gradient is
decided by the ratio rho = pi_theta(y_t) / pi_old(y_t) and the sign of the advantage, and rho itself need not
weigh anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.policy import High, Low, MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective
from etude.settings import Setting

Band = tuple[float, float]  # bounds of the ratio


def one_side(a: Tensor, rho: Tensor, near: Band, far: Band) -> Tensor:
    """PPO's clip: praise acts up to the upper bound of `near`, blame down to the lower one."""
    return ((a >= 0) & (rho <= near[1])) | ((a <= 0) & (rho >= near[0]))


def two_side(a: Tensor, rho: Tensor, near: Band, far: Band) -> Tensor:
    """Inside `near`, whatever the advantage."""
    return (rho >= near[0]) & (rho <= near[1])


def ring(a: Tensor, rho: Tensor, near: Band, far: Band) -> Tensor:
    """Inside `near`, and again beyond `far` where the gradient leads back."""
    beyond = ((a >= 0) & (rho <= far[0])) | ((a <= 0) & (rho >= far[1]))
    return two_side(a, rho, near, far) | beyond


def off(a: Tensor, rho: Tensor, near: Band, far: Band) -> Tensor:
    return torch.ones_like(rho, dtype=torch.bool)


MASKS: dict[str, Callable[[Tensor, Tensor, Band, Band], Tensor]] = {
    "off": off,
    "one-side": one_side,
    "two-side": two_side,
    "ring": ring,
}


def relative(
    mask: Annotated[
        str, Setting("which tokens keep their gradient, by the ratio rho", choices=tuple(MASKS))
    ] = "one-side",
    importance: Annotated[bool, Setting("weigh by rho")] = False,
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    far_low: Annotated[float, Setting("ring: below 1 - far_low praise acts again", low=0, high=1)] = 0.6,
    far_high: Annotated[float, Setting("ring: above 1 + far_high blame acts again", low=0)] = 2.0,
    opmd_tau: Annotated[float, Setting("weight of (log rho)^2, half of it absorbed", low=0)] = 0.0,
    advantage_temperature: Annotated[
        float, Setting("weigh by exp(A / advantage_temperature); 0: do not", low=0)
    ] = 0.0,
    mean: MeanOver = "token",
) -> Objective:
    """-M sg[rho]^importance exp(A / temperature) A log pi_theta + tau (log rho)^2, with M = 0 or 1 from rho and the
    sign of A (REC, OPMD, arXiv 2509.24203)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        rho, a = log_ratio(out, batch).exp().detach(), batch.advantage
        kept = MASKS[mask](a, rho, (1 - clip_low, 1 + clip_high), (1 - far_low, 1 + far_high))
        tilt = (a / advantage_temperature).exp() if advantage_temperature else 1.0
        weight = (rho if importance else 1.0) * tilt
        return -(kept * weight) * a * out.logp, {"clip": (~kept).float(), "ratio": rho}

    def pull(out: Outputs, batch: Batch) -> TokenLoss:
        return log_ratio(out, batch) ** 2

    whole = objective(Term("policy", loss, MEANS[mean], proportional=True))
    return whole + objective(Term("pull", pull, MEANS[mean], coefficient=opmd_tau)) if opmd_tau else whole
