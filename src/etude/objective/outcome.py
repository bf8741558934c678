"""Losses of companions that learn to predict an episode's outcome, as a rule from what they say of its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    objective,
    segment_mean,
    segment_sum,
    spread,
    sum_per_sequence,
)
from etude.policy.outputs import Outputs
from etude.train.batch import Batch

TOKEN_REWARD = "token_reward"  # OREAL's companion and its head

Said = Callable[[Outputs, Batch], Tensor]


def outcome_in_extras(batch: Batch) -> Tensor:
    return batch.extras["outcome"]


def to_outcome(
    said: Said,
    error: Callable[[Tensor, Tensor], Tensor],
    outcome: Callable[[Batch], Tensor] = outcome_in_extras,
    mean: bool = False,
    **more: Any,
) -> Objective:
    """error(sum_t said_t, R) per episode, mean over episodes; with `mean`, of their mean. Tokens are those with a
    "policy" weight, R is constant over them. `said` gives f32[N], `error` maps f32[B] twice to f32[B]."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        on, found = batch.weight("policy") != 0, said(out, batch)
        total = segment_mean(found, batch.episode, on) if mean else segment_sum(found * on, batch.episode)
        right = segment_mean(outcome(batch).to(total.dtype), batch.episode, on)
        return spread(error(total, right), batch.episode, on)

    return objective(Term("outcome", loss, sum_per_sequence), **more)


def binary_cross_entropy(score: Tensor, outcome: Tensor) -> Tensor:
    """f32[B]: binary cross-entropy of sigmoid(score) against the outcome."""
    return F.binary_cross_entropy_with_logits(score, outcome, reduction="none")


def implicit_outcome(beta: float) -> Objective:
    """Binary cross-entropy between sigmoid(beta sum_t (log pi_phi - log pi_ref)) and the outcome R (PRIME)."""
    return to_outcome(
        lambda out, batch: beta * (out.logp - batch.extras["reference"]),
        binary_cross_entropy,
        reads={"reference"},
    )


def estimate_progress() -> Objective:
    """(sum over turns of c_t - R)^2, c_t the head "progress" where a turn's last token is chosen (SPA-RL)."""
    return to_outcome(
        lambda out, batch: out.heads["progress"][:, 0], lambda total, right: (total - right) ** 2, progress=1
    )


def estimate_token_reward() -> Objective:
    """Binary cross-entropy of sigmoid(mean_t s_t) against whether the answer is right, s_t the head (OREAL)."""
    return to_outcome(
        lambda out, batch: out.heads[TOKEN_REWARD][:, 0],
        binary_cross_entropy,
        lambda batch: batch.weight("right") != 0,
        mean=True,
    )


def estimate_value() -> Objective:
    """(V(x) - R)^2 / 2, V the head "value" at an answer's first token (A-LoL)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return 0.5 * (out.heads["value"][:, 0] - batch.extras["reward"]) ** 2

    return objective(Term("value", loss, weight="first"))
