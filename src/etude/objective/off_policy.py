"""Importance weights for answers that another policy wrote: clipped, tapered, or implied by a mixture of policies."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from etude.objective.policy import Length
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    log_ratio,
    objective,
    per_constant,
    per_sequence,
    segment_sum,
    sum_per_sequence,
)
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch


def per_answer(log_ratio: Tensor, answer: Tensor) -> Tensor:
    """f[N]: at each token, the log-ratio of its whole answer; int64[N] `answer` numbers the answers."""
    return segment_sum(log_ratio, answer)[answer]


def clipped_weights(gap: Tensor, answer: Tensor, by: str, epsilon: float) -> Tensor:
    """clip(pi_theta / pi_ref, 1 - epsilon, 1 + epsilon) of whole answers, of tokens, or 1, from the log-ratio `gap`
    of each token (A-LoL)."""
    log_ratio = {"answer": per_answer(gap, answer), "token": gap, "off": torch.zeros_like(gap)}[by]
    return log_ratio.clamp(-20, 20).exp().clamp(1 - epsilon, 1 + epsilon)


def offline(
    weight: Annotated[str, Setting("importance weight", choices=("answer", "token", "off"))] = "answer",
    epsilon: Annotated[float, Setting("how far a weight may be from 1", low=0, high=1)] = 0.9,
    beta: Annotated[float, Setting("weight of log pi - log pi_start", "nats", low=0)] = 0.0,
) -> Objective:
    """-(sg[w] A - beta) log pi_theta(y_t), summed over an answer, mean over answers
    (A-LoL, arXiv 2305.14718)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        gap = torch.where(batch.weight("policy") != 0, out.logp - batch.extras["reference"], 0.0).detach()
        w = clipped_weights(gap, batch.episode, weight, epsilon)
        return (beta - w * batch.advantage) * out.logp, {"importance": w}

    term = Term("policy", loss, sum_per_sequence, proportional=not beta)
    return objective(term, reads={"reference"})


def tapered(
    both: Annotated[bool, Setting("taper right answers too (truncated importance sampling)")] = False,
    per_token: Annotated[bool, Setting("one ratio per token instead of one per answer")] = False,
) -> Objective:
    """-sg[w] A log pi_theta(y): w = 1 for A >= 0, min(1, pi_theta(y) / mu(y)) for A < 0
    (TOPR, arXiv 2503.14286)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).detach()
        weight = (ratio if per_token else per_answer(ratio, batch.episode)).clamp(max=0).exp()
        if not both:
            weight = torch.where(batch.advantage < 0, weight, 1.0)
        return -weight * batch.advantage * out.logp, {"taper": weight}

    return objective(Term("policy", loss, sum_per_sequence, proportional=True))


def negative_aware(
    floor: Annotated[float, Setting("least value of N inside the logarithm", low=1e-6)] = 1.0,
    negative: Annotated[float, Setting("weight of wrong answers", low=0)] = 1.0,
    whole: Annotated[bool, Setting("one ratio per answer instead of one per token")] = False,
    length: Length = 64.0,
) -> Objective:
    """-w log R for right answers, -w log max(N, floor) for wrong ones, N = (1 - r R) / (1 - r): the ratio of the
    negative policy implied by pi_old = r pi_+ + (1-r) pi_-. The maximum passes dN on unchanged
    (NFT, arXiv 2505.18116)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        log_r, a, r = log_ratio(out, batch), batch.advantage, batch.extras["rate"]
        if whole:
            log_r = per_answer(log_r, batch.episode)
        log_r = log_r.clamp(max=10)
        n = (1 - r * log_r.exp()) / (1 - r)
        held = n + (n.clamp(min=floor) - n).detach()
        wrong = negative * a * (1 - r) / r * held.log()  # a (1-r)/r = -w
        return torch.where(a > 0, -a * log_r, wrong), {"negative_ratio": n}

    mean = per_sequence if whole else per_constant(length)
    return objective(Term("policy", loss, mean, proportional=True))
