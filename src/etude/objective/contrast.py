"""Contrast between whole answers, in an embedding learned beside the policy."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from etude import seeds
from etude.objective.hybrid import actor_critic_and_imitation
from etude.objective.policy import High, Low, MeanOver, ValueClip, ValueWeight
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    objective,
    segment_sum,
    spread,
    sum_per_sequence,
)
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch


def pooled(embedding: Tensor, value: Tensor, index: Tensor, on: Tensor) -> Tensor:
    """f[B, d]: z = sum_t softmax_t(v_t) e_t over the tokens `on` (bool[N]) of each segment; 0 without any."""
    weight = torch.where(on, (value - value.max()).exp(), 0.0)
    total = segment_sum(weight, index).clamp(min=1e-30)
    blank = embedding.new_zeros(len(total), embedding.shape[1])
    return blank.index_add(0, index, weight[:, None] * embedding) / total[:, None]


def info_nce(cosine: Tensor, own: Tensor, tau: float, top: float) -> Tensor:
    """f[P]: -log(exp(min(c_ii, top) / tau) / sum_j exp(c_ij / tau)) of f[P, B] cosines, `own` int64[P] the i."""
    mine = cosine.gather(1, own[:, None])[:, 0].clamp(max=top)
    return (cosine / tau).logsumexp(1) - mine / tau


def embedded(out: Outputs, size: int) -> Tensor:
    """f[N, size]: the head "embed", which starts at 0, plus a fixed random projection of the hidden state; that
    is, a linear layer that starts at random."""
    assert out.hidden is not None
    width = out.hidden.shape[1]
    draw = torch.randn(width, size, generator=seeds.torch_generator("embed", width, size))
    return out.heads["embed"] + out.hidden @ (draw / width**0.5).to(out.hidden)


def contrast(coefficient: float, tau: float, top: float, size: int) -> Objective:
    """coefficient x InfoNCE of each episode with a "contrast" weight, mean over them. It is drawn to the episode
    of its group with an "anchor" weight (held fixed), away from all episodes with a "policy" weight."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        fixed, played, right = (batch.weight(row) != 0 for row in ("anchor", "policy", "contrast"))
        pool = pooled(embedded(out, size), out.heads["value"][:, 0], batch.episode, fixed | played)
        z, per_episode = F.normalize(pool, dim=-1), torch.zeros_like(pool[:, 0])
        anchors, attempts, mine = (batch.episode[on].unique() for on in (fixed, played, right))
        if len(mine):
            group = torch.zeros(len(z), dtype=torch.int64, device=z.device)
            group[batch.episode] = batch.group
            # episodes, and therefore groups, are in ascending order
            anchor = anchors[torch.searchsorted(group[anchors], group[mine])]
            cosine = z[anchor].detach() @ z[attempts].T
            found = info_nce(cosine, torch.searchsorted(attempts, mine), tau, top)
            per_episode = per_episode.index_add(0, mine, found)
        return spread(per_episode, batch.episode, right)

    term = Term("contrast", loss, sum_per_sequence, weight="contrast", coefficient=coefficient)
    return objective(term, needs={"hidden"}, unit="batch", value=1, embed=size)


def contrasted(
    low: Low = 0.2,
    high: High = 0.2,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
    mean: MeanOver = "sequence",
    coefficient: Annotated[float, Setting("weight of the contrastive loss", low=0)] = 0.1,
    tau: Annotated[float, Setting("temperature of the contrast", low=0.01)] = 0.2,
    top: Annotated[float, Setting("cosine above which nothing is pulled closer", low=-1, high=1)] = 0.9,
    size: Annotated[int, Setting("width of the embedding", low=1)] = 64,
) -> Objective:
    """ReFT's loss and the contrast; without a coefficient ReFT's alone (CARFT, arXiv 2508.15868)."""
    base = actor_critic_and_imitation(low, high, value_clip, value_weight, mean)
    return base + contrast(coefficient, tau, top, size) if coefficient else base
