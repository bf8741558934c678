"""Losses of auxiliary models that learn to predict an episode's outcome, as the sum or mean of what they say of its
tokens: return decomposition, or an implicit process reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    objective,
    segment_mean,
    segment_sum,
    spread,
    sum_per_episode,
)


def to_outcome(
    said: Callable[[Outputs, Batch], Tensor],
    error: Callable[[Tensor, Tensor], Tensor],
    outcome: Callable[[Batch], Tensor] = lambda batch: batch.extras["outcome"],
    mean: bool = False,
    **more: Any,
) -> Objective:
    """error(sum_t said_t, R) per episode, mean over episodes; with `mean`, of their mean. Tokens are those with a
    "policy" weight, R is constant over them. `said` gives f32[N], `error` maps f32[B] twice to f32[B]; `more` as for
    `terms.objective`."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        on, found = batch.weight("policy") != 0, said(out, batch)
        total = segment_mean(found, batch.episode, on) if mean else segment_sum(found * on, batch.episode)
        right = segment_mean(outcome(batch).to(total.dtype), batch.episode, on)
        return spread(error(total, right), batch.episode, on)

    return objective(Term("outcome", loss, sum_per_episode), **more)


def binary_cross_entropy(score: Tensor, outcome: Tensor) -> Tensor:
    """f32[B]: binary cross-entropy of sigmoid(score) against the outcome."""
    return F.binary_cross_entropy_with_logits(score, outcome, reduction="none")
