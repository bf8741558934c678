"""Reinforcement and imitation in one loss: weight row "policy" says where the one acts, "imitation" where the
other. Tasks without attempts, or without demonstrations, leave their term empty."""

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

EntropyWeight = Annotated[float, Setting("weight of the entropy bonus", "per nat", low=0)]
ImitationWeight = Annotated[float, Setting("weight of the imitation loss", low=0)]


def imitation(weight: float = 1.0) -> Objective:
    """weight x the token mean of -log pi_theta(y*_t). Nothing for weight 0."""
    (term,) = cross_entropy("token").terms
    return objective(replace(term, coefficient=weight)) if weight else objective(silent={"imitation"})


def imitation_entropy(weight: float) -> Objective:
    """The entropy bonus on the tokens that are imitated."""
    bonus = entropy_bonus(weight)
    terms = (replace(t, name=f"{t.name}/imitation", weight="imitation") for t in bonus.terms)
    return replace(bonus, terms=tuple(terms))


def practise_and_imitate(
    length_divisor: Length = 64.0,
    imitation_weight: ImitationWeight = 1.0,
    entropy_weight: EntropyWeight = 0.001,
) -> Objective:
    """-rho_t A_t, summed over an episode and divided by a constant length (Dr. GRPO without its clip); cross-entropy
    on demonstrations, a token mean; and an entropy bonus on both."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -log_ratio(out, batch).exp() * batch.advantage

    return (
        objective(Term("policy", loss, per_constant(length_divisor), proportional=True))
        + imitation(imitation_weight)
        + entropy_bonus(entropy_weight)
        + imitation_entropy(entropy_weight)
    )


def actor_critic_and_imitation(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
    mean: MeanOver = "token",
) -> Objective:
    """PPO with a value head, its two terms averaged as told, and cross-entropy on demonstrations."""
    ppo = clipped_with_value(clip_low, clip_high, value_clip, value_weight)
    # The value term acts on every attempt, so none may be skipped for an advantage of 0.
    terms = (replace(t, mean=MEANS[mean], proportional=False) for t in ppo.terms)
    return replace(ppo, terms=tuple(terms)) + imitation()
