"""Cross-entropy on given tokens."""

from __future__ import annotations

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective


def imitation(coefficient: float = 1.0, mean: str = "token") -> Term:
    """-coefficient log pi_theta(y_t) on the tokens with an "imitation" weight."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp

    return Term("imitation", loss, MEANS[mean], weight="imitation", coefficient=coefficient)


def cross_entropy(mean: MeanOver = "token") -> Objective:
    """-log pi_theta(y_t) on the tokens with an "imitation" weight: A = 1, reference probability pi_theta."""
    return objective(imitation(mean=mean))
