"""Policy-gradient losses, each a loss per token. rho_t = pi_theta(y_t) / pi_old(y_t); A_t is never differentiated."""

from __future__ import annotations

from typing import Annotated

import torch

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.terms import (
    MEANS,
    Objective,
    Term,
    TokenLoss,
    clipped_share,
    k3,
    log_ratio,
    objective,
    surrogate,
)
from etude.settings import Setting

Low = Annotated[float, Setting("how far the ratio may fall below 1", low=0, high=1)]
High = Annotated[float, Setting("how far the ratio may rise above 1", low=0)]
MeanOver = Annotated[str, Setting("what the loss is averaged over", choices=("token", "episode", "sum"))]
Dual = Annotated[float | None, Setting("bound on the loss of negative advantages, in |A|", low=1)]
Length = Annotated[float, Setting("constant divisor of every episode", "tokens", low=1)]
ValueClip = Annotated[float | None, Setting("how far a value may move per batch", low=0)]
ValueWeight = Annotated[float, Setting("weight of the value loss", low=0)]
Beta = Annotated[float, Setting("weight of the KL to the starting policy", "nats", low=0)]


def kl_to_start(beta: float) -> Objective:
    """beta x k3 estimate of KL(pi || pi_ref), token mean; nothing, and no reference model, for beta = 0."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        kl = k3(out.logp, batch.extras["reference"])
        return kl, {"kl_reference": kl}

    return objective(Term("kl", loss, coefficient=beta), reads={"reference"}) if beta else objective()


def plain(mean: MeanOver = "sum") -> Objective:
    """REINFORCE: -A_t log pi_theta(y_t) (Williams 1992)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.advantage * out.logp

    return objective(Term("policy", loss, MEANS[mean], proportional=True))


def clipped(
    low: Low = 0.2,
    high: High = 0.2,
    mean: MeanOver = "episode",
    dual: Dual = None,
    beta: Beta = 0.0,
) -> Objective:
    """PPO's clipped surrogate, averaged as told, plus beta x KL to the starting policy."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp()
        cut = clipped_share(ratio, batch.advantage, low, high)
        return surrogate(ratio, batch.advantage, low, high, dual), {"clip": cut, "ratio": ratio}

    return objective(Term("policy", loss, MEANS[mean], proportional=True)) + kl_to_start(beta)


def clipped_with_value(
    low: Low = 0.2,
    high: High = 0.2,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
    beta: Beta = 0.0,
) -> Objective:
    """PPO: the clipped surrogate and half the (clipped) squared error of the value head, token means."""
    base = clipped(low, high, mean="token", beta=beta)

    def value_loss(out: Outputs, batch: Batch) -> TokenLoss:
        value, returns = out.heads["value"][:, 0], batch.extras["returns"]
        error = (value - returns) ** 2
        if value_clip is not None:
            old = batch.extras["values"]
            error = torch.maximum(error, (old + (value - old).clamp(-value_clip, value_clip) - returns) ** 2)
        return 0.5 * error, {"value": value, "value_error": 0.5 * error}

    return base + objective(Term("value", value_loss, MEANS["token"], coefficient=value_weight), value=1)
