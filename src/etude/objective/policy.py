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
KLWeight = Annotated[float, Setting("weight of the KL to the start", "per nat", low=0)]


def kl_to_start(kl_weight: float) -> Objective:
    """kl_weight x k3 estimate of KL(pi_theta || pi_ref), token mean, with k3 = r - 1 - log r, r = pi_ref/pi_theta.
    Nothing, and no reference model, for weight 0."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        kl = k3(out.logp, batch.extras["reference"])
        return kl, {"kl_reference": kl}

    return (
        objective(Term("kl", loss, coefficient=kl_weight), reads={"reference"}) if kl_weight else objective()
    )


def plain(mean: MeanOver = "sum") -> Objective:
    """REINFORCE: -A_t log pi_theta(y_t) (Williams 1992)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.advantage * out.logp

    return objective(Term("policy", loss, MEANS[mean], proportional=True))


def clipped(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    mean: MeanOver = "episode",
    dual_clip: Dual = None,
    kl_weight: KLWeight = 0.0,
) -> Objective:
    """PPO's clipped surrogate -min(rho_t A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) A_t) (arXiv 1707.06347): no
    gradient for a token that has already moved past the bound in the direction of its advantage. With `dual_clip`, at
    most dual_clip |A_t| where A_t < 0 (arXiv 1912.09729). Averaged as told, plus kl_weight x KL to the start."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp()
        cut = clipped_share(ratio, batch.advantage, clip_low, clip_high)
        lost = surrogate(ratio, batch.advantage, clip_low, clip_high, dual_clip)
        return lost, {"clip": cut, "ratio": ratio}

    return objective(Term("policy", loss, MEANS[mean], proportional=True)) + kl_to_start(kl_weight)


def clipped_with_value(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
    kl_weight: KLWeight = 0.0,
) -> Objective:
    """PPO with a value head V (arXiv 1707.06347): the clipped surrogate plus value_weight x 1/2 (V - R)^2, token means.
    With `value_clip`, the larger of that error and the error of V kept within value_clip of the value predicted when
    the batch was credited. Extras: `returns` (R), `values` (the old V)."""
    base = clipped(clip_low, clip_high, mean="token", kl_weight=kl_weight)

    def value_loss(out: Outputs, batch: Batch) -> TokenLoss:
        value, returns = out.heads["value"][:, 0], batch.extras["returns"]
        error = (value - returns) ** 2
        if value_clip is not None:
            old = batch.extras["values"]
            error = torch.maximum(error, (old + (value - old).clamp(-value_clip, value_clip) - returns) ** 2)
        return 0.5 * error, {"value": value, "value_error": 0.5 * error}

    term = Term("value", value_loss, MEANS["token"], coefficient=value_weight)
    old = {"values"}
    read, silent = ({"returns"} | old, set()) if value_clip is not None else ({"returns"}, old)
    return base + objective(term, extras=read, silent=silent, value=1)
