"""CARFT: ReFT, with right solutions drawn towards the annotated one in an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from etude import seeds
from etude.batch import Batch
from etude.credit.imitate import tagged
from etude.credit.kl_penalty import Regularised
from etude.methods.imitation_and_rl.reft import RECIPE as REFT
from etude.models.outputs import Outputs
from etude.objective.hybrid import actor_critic_and_imitation
from etude.objective.policy import High, Low, MeanOver, ValueClip, ValueWeight
from etude.objective.terms import Objective, Term, TokenLoss, objective, segment_sum, spread, sum_per_episode
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.demonstrations import beside
from etude.settings import Setting, stage
from etude.types import Group, Signal


class Contrasted(Regularised):
    """ReFT's credit; beside it, weight rows for the contrast: "contrast" on right attempts, and "anchor" on the
    demonstration that stands beside attempts (CARFT, arXiv 2508.15868)."""

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = []
        for signal in super().__call__(groups, context):
            row = np.float32(signal.episode.correct) * signal.episode.sampled.astype(np.float32)
            signals.append(replace(signal, weights={**signal.weights, "contrast": row}))
        for annotated in (e for g in groups if g.episodes for e in g.demonstrations):
            row = tagged(annotated, "demonstration").astype(np.float32)
            signals.append(Signal(annotated, np.zeros_like(row), {"anchor": row}))
        return signals


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

    term = Term("contrast", loss, sum_per_episode, weight="contrast", coefficient=coefficient)
    return objective(term, needs={"hidden"}, unit="batch", value=1, embed=size)


def contrasted(
    low: Low = 0.2,
    high: High = 0.2,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
    mean: MeanOver = "episode",
    coefficient: Annotated[float, Setting("weight of the contrastive loss", low=0)] = 0.1,
    tau: Annotated[float, Setting("temperature of the contrast", low=0.01)] = 0.2,
    top: Annotated[float, Setting("cosine above which nothing is pulled closer", low=-1, high=1)] = 0.9,
    size: Annotated[int, Setting("width of the embedding", low=1)] = 64,
) -> Objective:
    """ReFT's loss and the contrast; without a coefficient ReFT's alone (CARFT, arXiv 2508.15868)."""
    base = actor_critic_and_imitation(low, high, value_clip, value_weight, mean)
    return base + contrast(coefficient, tau, top, size) if coefficient else base


RECIPE = Recipe(
    name="carft",
    n=97,
    base=REFT,
    paper=Paper(
        "CARFT: Boosting LLM Reasoning via Contrastive Learning with Annotated Chain-of-Thought-based Reinforced Fine-Tuning",
        "2508.15868",
        2025,
    ),
    idea="ReFT no longer looks at the annotated solution once practice begins. "
    "Here every right attempt is drawn, in a small embedding, towards the annotated solution of its task and away from the other attempts. "
    "That is meant to keep training from collapsing.",
    equation="L = L_ReFT + c mean over right i of -log exp(min(cos(z*_i, z_i), 0.9)/tau) / sum_j exp(cos(z*_i, z_j)/tau),  "
    "z = sum_t softmax_t(v_t) e_t",
    departures=(
        "z* is embedded, without gradient, by the weights of the update and not of the rollout: the same on the first pass",
        "c = 0.1, one of the four values swept",
        "guess: a token's embedding is that of the state in which it is chosen, and the end token is pooled too",
    ),
    stages={
        "group_rollout": stage(beside, warmup=0.2),
        "credit": stage(Contrasted),
        "objective": stage(contrasted),
    },
    claim="Fewer seeds collapse than under ReFT.",
    examples=(
        ByHand(
            "one attempt: 0 below the clamp, (1 - 0.9) / 0.2 at cosine 1",
            lambda: [float(info_nce(torch.tensor([[c]]), torch.tensor([0]), 0.2, 0.9)) for c in (0.5, 1.0)],
            [0.0, 0.5],
        ),
        ByHand(
            "states 0 and 4 of values log 3 and log 9 pool to 3",
            lambda: pooled(
                torch.tensor([[0.0], [4.0]]),
                torch.tensor([3.0, 9.0]).log(),
                torch.tensor([0, 0]),
                torch.tensor([True, True]),
            ),
            [[3.0]],
        ),
        Reduction(
            "without the contrast: ReFT",
            "reft",
            {"group_rollout.warmup": 0.0, "objective.coefficient": 0.0, "objective.value_weight": 5.0},
            {"group_rollout.warmup": 0.0},
        ),
    ),
)
