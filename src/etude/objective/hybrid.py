"""Reinforcement and imitation in one loss: "policy" weights say where the one acts, "imitation" weights where
the other. Tasks without attempts, or without demonstrations, leave their term empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.entropy import entropy_bonus
from etude.objective.imitation import cross_entropy
from etude.objective.policy import (
    High,
    Length,
    Low,
    MeanOver,
    ValueClip,
    ValueWeight,
    clipped_with_value,
)
from etude.objective.terms import (
    MEANS,
    Objective,
    Term,
    TokenLoss,
    log_ratio,
    objective,
    per_constant,
)
from etude.settings import Setting

Entropy = Annotated[float, Setting("weight of the entropy bonus", "per nat", low=0)]
Imitation = Annotated[float, Setting("weight of the imitation loss", low=0)]


def imitation(coefficient: float = 1.0) -> Objective:
    """coefficient x the token mean of -log pi_theta(y*_t)."""
    (term,) = cross_entropy("token").terms
    return objective(replace(term, coefficient=coefficient)) if coefficient else objective()


def imitation_entropy(coefficient: float) -> Objective:
    """The entropy bonus on the tokens that are imitated."""
    bonus = entropy_bonus(coefficient)
    terms = (replace(t, name=f"{t.name}/imitation", weight="imitation") for t in bonus.terms)
    return replace(bonus, terms=tuple(terms))


def unclipped(length: float) -> Objective:
    """-rho_t A_t, summed over the tokens of an episode and divided by a constant: Dr. GRPO without its clip."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -log_ratio(out, batch).exp() * batch.advantage

    return objective(Term("policy", loss, per_constant(length), proportional=True))


def practise_and_imitate(
    length: Length = 64.0, imitate: Imitation = 1.0, entropy: Entropy = 0.001
) -> Objective:
    """-rho A over a constant length, cross-entropy as a token mean, and an entropy bonus on both."""
    return unclipped(length) + imitation(imitate) + entropy_bonus(entropy) + imitation_entropy(entropy)


def actor_critic_and_imitation(
    low: Low = 0.2,
    high: High = 0.2,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
    mean: MeanOver = "token",
) -> Objective:
    """PPO with a value head, its two terms averaged as told, and cross-entropy on demonstrations."""
    ppo = clipped_with_value(low, high, value_clip, value_weight)
    # The value term acts on every attempt, so none may be skipped for an advantage of 0.
    terms = (replace(t, mean=MEANS[mean], proportional=False) for t in ppo.terms)
    return replace(ppo, terms=tuple(terms)) + imitation()
