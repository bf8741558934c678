"""Reinforcement and imitation in one loss: weight row "policy" says where the one acts, "imitation" where the
other. Tasks without attempts, or without demonstrations, leave their term empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

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
    Mean,
    Objective,
    Term,
    TokenLoss,
    averaged,
    log_ratio,
    objective,
    per_episode,
    per_token,
)
from etude.settings import Setting

EntropyWeight = Annotated[float, Setting("weight of the entropy bonus", "per nat", low=0)]
DistilWeight = Annotated[float, Setting("weight of the second attempt learnt without the help it had", low=0)]
ImitationWeight = Annotated[float, Setting("weight of the imitation loss", low=0)]


def imitation(weight: float = 1.0) -> Objective:
    """weight x the token mean of -log pi_theta(y*_t). Nothing for weight 0."""
    (term,) = cross_entropy("token").terms
    return objective(replace(term, coefficient=weight)) if weight else objective(silent={"imitation"})


def _acting(batch: Batch) -> Tensor:
    """bool[N]: the tokens that are practised or imitated."""
    return (batch.weight("policy") != 0) | (batch.weight("imitation") != 0)


def _per_task(share: Callable[[Batch, Tensor], Tensor]) -> Mean:
    """Sum over a task's episodes, mean over the tasks that are practised or imitated."""
    return Mean("task", share, lambda b, a: float(len(torch.unique(b.group[_acting(b)]))))


def practise_and_imitate(
    length_divisor: Length = 64.0,
    imitation_weight: ImitationWeight = 1.0,
    entropy_weight: EntropyWeight = 0.001,
) -> Objective:
    """The mean over tasks of what is practised, sum_i sum_t -rho_it A_i / L (Dr. GRPO without its clip, summed over the
    task's attempts), or imitated, -mean_t log pi(y*_t). So imitation weighs as much as the share of tasks that are
    imitated. Minus the entropy bonus, a mean over the tokens of both."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -log_ratio(out, batch).exp() * batch.advantage

    summed = _per_task(lambda b, a: torch.full_like(b.behaviour, 1 / length_divisor))
    practice = objective(Term("policy", loss, summed, proportional=True))
    either = Mean("token", per_token.share, lambda b, a: float(_acting(b).sum()))
    entropy = averaged(entropy_bonus(entropy_weight), either)
    beside = (replace(t, name=f"{t.name}/imitation", weight="imitation") for t in entropy.terms)
    taught = averaged(imitation(imitation_weight), _per_task(per_episode.share))
    return practice + taught + entropy + replace(entropy, terms=tuple(beside))


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
