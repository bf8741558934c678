"""The exact entropy of the policy's next-token distribution, as a term."""

from __future__ import annotations

from torch import Tensor

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.terms import Objective, Term, TokenLoss, objective


def entropy_bonus(weight: float, share: str | None = None) -> Objective:
    """-weight x H_t, token mean; with `share`, times that row of the signals' extras. Nothing for weight 0."""
    rows = {share} if share else set()
    if not weight:
        return objective(silent=rows)

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        assert out.entropy is not None
        own = batch.extras[share] if share else 1.0
        return -own * out.entropy, {"exact_entropy": out.entropy}

    return objective(Term("entropy", loss, coefficient=weight), needs={"entropy"}, extras=rows)


def exact_entropy(out: Outputs) -> Tensor:
    """f32[N], for readers of outputs that were asked for with needs={"entropy"}."""
    assert out.entropy is not None
    return out.entropy
