"""Losses of companions that learn to predict an episode's outcome from the sum of what they say of its tokens."""

from __future__ import annotations

from collections.abc import Callable

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


def sums_to_outcome(
    said: Callable[[Outputs, Batch], Tensor], error: Callable[[Tensor, Tensor], Tensor], **more: object
) -> Objective:
    """error(sum_t said_t, R) per episode, mean over episodes: the sum is over tokens with a "policy" weight, R
    is `extras["outcome"]` (constant over them). `said` gives f32[N], `error` maps f32[B] twice to f32[B]."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        on = batch.weight("policy") != 0
        total = segment_sum(said(out, batch) * on, batch.episode)
        outcome = segment_mean(batch.extras["outcome"].to(total.dtype), batch.episode, on)
        return spread(error(total, outcome), batch.episode, on)

    return objective(Term("outcome", loss, sum_per_sequence), **more)  # type: ignore[arg-type]
