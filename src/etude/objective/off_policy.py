"""Importance weights for answers that another policy wrote: clipped, tapered, or implied by a mixture of policies."""

from __future__ import annotations

from torch import Tensor

from etude.objective.terms import (
    segment_sum,
)


def per_answer(log_ratio: Tensor, answer: Tensor) -> Tensor:
    """f[N]: at each token, the log-ratio of its whole answer; int64[N] `answer` numbers the answers."""
    return segment_sum(log_ratio, answer)[answer]
