"""The exact entropy of the policy's next-token distribution, as a term."""

from __future__ import annotations

from typing import Annotated

from etude.objective.policy import Beta, Dual, High, Low, clipped
from etude.objective.terms import Objective, Term, TokenLoss, objective
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch


def entropy_bonus(weight: float, share: str | None = None) -> Objective:
    """-weight x H_t, token mean; with `share`, times that row of the signals' extras. Nothing for weight 0."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        assert out.entropy is not None
        own = batch.extras[share] if share else 1.0
        return -own * out.entropy, {"exact_entropy": out.entropy}

    return objective(Term("entropy", loss, coefficient=weight), needs={"entropy"}) if weight else objective()


def clipped_with_entropy(
    low: Low = 1.0,
    high: High = 1.0,
    dual: Dual = 10.0,
    beta: Beta = 0.0,
    weight: Annotated[float, Setting("weight of the entropy term; 0: off", low=0)] = 1.0,
) -> Objective:
    """PPO's clip and -sg[bonus_t] H_t, token means."""
    return clipped(low, high, "token", dual, beta) + entropy_bonus(weight, "bonus")
