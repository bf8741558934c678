"""Policy-gradient losses, each a loss per token. rho_t = pi_theta(y_t) / pi_old(y_t); A_t is never differentiated."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch

from etude.objective.terms import (
    MEANS,
    Objective,
    Term,
    TokenLoss,
    averaged,
    clipped_share,
    k3,
    log_ratio,
    objective,
    per_constant,
    per_sequence,
    segment_mean,
    surrogate,
)
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch

Low = Annotated[float, Setting("how far the ratio may fall below 1", low=0, high=1)]
High = Annotated[float, Setting("how far the ratio may rise above 1", low=0)]
MeanOver = Annotated[str, Setting("what the loss is averaged over", choices=("token", "sequence", "sum"))]
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
    mean: MeanOver = "sequence",
    dual: Dual = None,
    beta: Beta = 0.0,
) -> Objective:
    """PPO's clipped surrogate, averaged as told, plus beta x KL to the starting policy."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp()
        cut = clipped_share(ratio, batch.advantage, low, high)
        return surrogate(ratio, batch.advantage, low, high, dual), {"clip": cut, "ratio": ratio}

    return objective(Term("policy", loss, MEANS[mean], proportional=True)) + kl_to_start(beta)


def clipped_constant(
    low: Low = 0.2,
    high: High = 0.2,
    length: Length = 64.0,
) -> Objective:
    """The clipped surrogate summed over tokens and divided by a constant, not by the answer's length."""
    return averaged(clipped(low, high), per_constant(length))


def sequence_clipped(low: Low = 3e-4, high: High = 4e-4) -> Objective:
    """GSPO: one ratio per episode, s_i = exp(mean_t log rho_t), clipped as a whole (arXiv 2507.18071).

    Every token carries s_i, so that the mean over tokens of an episode is the episode's loss."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        mean = segment_mean(log_ratio(out, batch), batch.episode, batch.sampled & batch.needed)
        ratio = mean.exp()[batch.episode]
        cut = clipped_share(ratio, batch.advantage, low, high)
        return surrogate(ratio, batch.advantage, low, high), {"clip": cut, "ratio": ratio}

    return objective(Term("policy", loss, per_sequence, proportional=True))


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


def two_sided(
    negative: Annotated[float, Setting("weight of wrong answers", low=0)] = 0.5, beta: Beta = 0.01
) -> Objective:
    """-w_t A log pi_theta(y_t), a token mean over right answers plus `negative` times one over wrong answers, plus
    beta x KL to the starting policy (OREAL, arXiv 2502.06781)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.extras["share"] * batch.advantage * out.logp

    right = Term("right", loss, weight="right", proportional=True)
    wrong = Term("wrong", loss, weight="wrong", coefficient=negative, proportional=True)
    return objective(right, wrong) + kl_to_start(beta)


def windowed_with_value(
    low: Low = 0.2,
    high: High = 0.28,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
) -> Objective:
    """PPO's objective, its value term on the tokens with a weight of their own (T-PPO, arXiv 2506.15050)."""
    ppo = clipped_with_value(low, high, value_clip, value_weight)
    terms = (replace(t, weight="value") if t.name == "value" else t for t in ppo.terms)
    return replace(ppo, terms=tuple(terms))
