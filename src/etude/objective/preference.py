"""Losses over pairs of answers to one task."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.terms import Objective, Term, TokenLoss, objective, segment_sum, spread, sum_per_episode
from etude.settings import Setting

PAIR = "pair"
"""Extra: the number of the pair that a token belongs to, from 1 within its group."""


def implicit_rewards(out: Outputs, batch: Batch) -> Tensor:
    """f32[B]: sum over an episode's trained tokens of log pi_theta - log pi_ref."""
    on = batch.weight("policy") != 0
    delta = torch.where(on, out.logp - batch.extras["reference"], 0.0)
    return segment_sum(delta, batch.episode)


def pairs_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """int64[P] each: the episodes that were chosen and rejected, pair by pair. Pairs lie within a group."""
    edges = torch.arange(int(batch.episode[-1]) + 2, device=batch.tokens.device)
    last = torch.searchsorted(batch.episode, edges)[1:] - 1
    sign = segment_sum(batch.advantage, batch.episode).sign()
    name = batch.group[last] * 1000 + batch.extras[PAIR][last].long()
    chosen, rejected = (sign > 0).nonzero()[:, 0], (sign < 0).nonzero()[:, 0]
    return chosen[name[chosen].argsort()], rejected[name[rejected].argsort()]


def pair_loss(margin: Tensor | float, beta: float) -> Tensor:
    """-log sigmoid(beta x margin)."""
    return -F.logsigmoid(beta * torch.as_tensor(margin))


DpoBeta = Annotated[
    float, Setting("beta: inverse temperature of the implicit rewards beta log(pi / pi_ref)", low=0)
]


def dpo_loss(dpo_beta: DpoBeta = 0.1) -> Objective:
    """-log sigmoid(beta (d_chosen - d_rejected)), d = log pi_theta(y) - log pi_ref(y) (arXiv 2305.18290);
    mean over pairs. Each episode of a pair carries half of its loss."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        d = implicit_rewards(out, batch)
        chosen, rejected = pairs_of(batch)
        margin = d[chosen] - d[rejected]
        per_episode = torch.zeros_like(d).index_add(
            0, torch.cat([chosen, rejected]), pair_loss(margin, dpo_beta).repeat(2)
        )
        active = batch.weight("policy") != 0
        right = torch.zeros_like(d).index_add(0, torch.cat([chosen, rejected]), (margin > 0).to(d).repeat(2))
        return spread(per_episode, batch.episode, active), {"preferred": right[batch.episode]}

    return objective(
        Term("preference", loss, sum_per_episode), reads={"reference"}, unit="group", extras={PAIR}
    )
