"""CARFT (arXiv 2508.15868): ReFT, and a contrastive loss beside it. Every right attempt is drawn, in a small embedding,
towards the annotated solution of its task and away from the other attempts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from etude import seeds
from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION, tagged
from etude.credit.kl_penalty import ActorCriticFromWarmup
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    example_answers,
    example_demonstration,
    example_loss,
    given_stage,
)
from etude.methods.imitation_and_rl.reft import RECIPE as REFT
from etude.models.outputs import Outputs
from etude.objective.hybrid import actor_critic_and_imitation
from etude.objective.policy import High, Low, MeanOver, ValueClip, ValueWeight
from etude.objective.terms import Objective, Term, TokenLoss, objective, segment_sum, spread, sum_per_episode
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.demonstrations import demonstration_and_attempts
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Group, Signal

CONTRAST = "contrast"  # weight row: the tokens of right attempts
ANCHOR = "anchor"  # weight row that the contrast itself reads: the demonstration that stands beside attempts
EMBED = "embed"  # head


@writes("policy", IMITATION, CONTRAST, ANCHOR, extras=("returns", "values"))
class ContrastedFromWarmup(ActorCriticFromWarmup):
    """ReFT's credit, with the weight rows of the contrast."""

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for signal in super().__call__(groups, context):
            row = np.float32(signal.episode.correct) * signal.episode.sampled.astype(np.float32)
            signals.append(replace(signal, weights={**signal.weights, CONTRAST: row}))
        for annotated in (e for g in groups if g.episodes for e in g.demonstrations):
            row = tagged(annotated, DEMONSTRATED).astype(np.float32)
            signals.append(Signal(annotated, np.zeros_like(row), {ANCHOR: row}))
        return signals


def pooled(embedding: Tensor, value: Tensor, index: Tensor, on: Tensor) -> Tensor:
    """f[B, d]: z = sum_t softmax_t(v_t) e_t over the tokens `on` (bool[N]) of each segment; 0 without any."""
    weight = torch.where(on, (value - value.max()).exp(), 0.0)
    total = segment_sum(weight, index).clamp(min=1e-30)
    blank = embedding.new_zeros(len(total), embedding.shape[1])
    return blank.index_add(0, index, weight[:, None] * embedding) / total[:, None]


def info_nce(cosine: Tensor, own: Tensor, tau: float, max_cosine: float) -> Tensor:
    """f[P]: -log(exp(min(c_ii, max_cosine) / tau) / sum_j exp(c_ij / tau)) of f[P, B] cosines, `own` int64[P] the i."""
    mine = cosine.gather(1, own[:, None])[:, 0].clamp(max=max_cosine)
    return (cosine / tau).logsumexp(1) - mine / tau


def embedded(out: Outputs, width: int) -> Tensor:
    """f[N, width]: the head "embed", which starts at 0, plus a fixed random projection of the hidden state; that
    is, a linear layer that starts at random."""
    assert out.hidden is not None
    size = out.hidden.shape[1]
    draw = torch.randn(size, width, generator=seeds.torch_generator("embed", size, width))
    return out.heads[EMBED] + out.hidden @ (draw / size**0.5).to(out.hidden)


def contrast(weight: float, tau: float, max_cosine: float, width: int) -> Objective:
    """weight x the mean over right attempts i of

    -log(exp(min(cos(z*_i, z_i), max_cosine) / tau) / sum_j exp(cos(z*_i, z_j) / tau)), j over all attempts,

    z* the anchor of the attempt's group, held fixed. z = sum_t softmax_t(v_t) e_t, v the value and e the embedding."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        fixed, played, right = (batch.weight(row) != 0 for row in (ANCHOR, "policy", CONTRAST))
        pool = pooled(embedded(out, width), out.heads["value"][:, 0], batch.episode, fixed | played)
        z, per_episode = F.normalize(pool, dim=-1), torch.zeros_like(pool[:, 0])
        anchors, attempts, mine = (batch.episode[on].unique() for on in (fixed, played, right))
        if len(mine):
            group = torch.zeros(len(z), dtype=torch.int64, device=z.device)
            group[batch.episode] = batch.group
            # episodes, and therefore groups, are in ascending order
            anchor = anchors[torch.searchsorted(group[anchors], group[mine])]
            cosine = z[anchor].detach() @ z[attempts].T
            found = info_nce(cosine, torch.searchsorted(attempts, mine), tau, max_cosine)
            per_episode = per_episode.index_add(0, mine, found)
        return spread(per_episode, batch.episode, right)

    term = Term("contrast", loss, sum_per_episode, weight=CONTRAST, coefficient=weight)
    return objective(term, needs={"hidden"}, unit="batch", silent={ANCHOR}, value=1, embed=width)


def actor_critic_and_contrast(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 5.0,
    mean: MeanOver = "episode",
    contrast_weight: Annotated[float, Setting("weight of the contrastive loss", low=0)] = 0.1,
    contrast_temperature: Annotated[float, Setting("tau: temperature of the contrast", low=0.01)] = 0.2,
    max_cosine: Annotated[
        float, Setting("cosine above which nothing is pulled closer", low=-1, high=1)
    ] = 0.9,
    embedding_width: Annotated[int, Setting("width of the embedding", low=1)] = 64,
) -> Objective:
    """ReFT's loss and the contrast; at weight 0 ReFT's alone."""
    base = actor_critic_and_imitation(clip_low, clip_high, value_clip, value_weight, mean)
    if not contrast_weight:
        return replace(base, silent=base.silent | {CONTRAST, ANCHOR})
    return base + contrast(contrast_weight, contrast_temperature, max_cosine, embedding_width)


def _contrast(*right: float) -> float:
    """The loss of a right and a wrong attempt beside a demonstration, embedded in the plane at (1, 0) (the
    demonstration), at `right`, and at (0, 1). On-policy the surrogate is 0; values have no weight here."""
    group = example_answers((1.0, (2,)), (0.0, (3,)), demonstrations=[example_demonstration((4,))])
    context = GivenContext(GivenModel(value=0.0), {"reference": GivenModel()})
    signals = given_stage(RECIPE, "credit")([group], context)
    model = GivenModel(value=0.0, embed=[right, (0.0, 1.0), (1.0, 0.0)])
    settings = {"value_weight": 0.0, "embedding_width": 2}
    return example_loss(given_stage(RECIPE, "objective", **settings), signals, model)


RECIPE = Recipe(
    name="carft",
    base=REFT,
    paper=Paper(
        "CARFT: Boosting LLM Reasoning via Contrastive Learning with Annotated Chain-of-Thought-based Reinforced Fine-Tuning",
        "2508.15868",
        2025,
    ),
    published_lr=3e-7,
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
        "group_rollout": stage(demonstration_and_attempts, warmup_share=0.2),
        "credit": stage(ContrastedFromWarmup),
        "objective": stage(actor_critic_and_contrast),
    },
    claim="Fewer seeds collapse than under ReFT.",
    manipulation=(Manipulated("the contrast moves by a tenth of a nat", "loss/contrast", 0.1, read="range"),),
    examples=(
        ByHand(
            "one attempt: 0 below the bound, (1 - 0.9) / 0.2 at cosine 1",
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
        ByHand(
            "values of a thousand: no overflow",
            lambda: pooled(
                torch.tensor([[0.0], [4.0]]),
                torch.tensor([1e3, 1e3]),
                torch.tensor([0, 0]),
                torch.tensor([True, True]),
            ),
            [[2.0]],
        ),
        ByHand(
            "cosines 0.6 and 0: a tenth of -log(e^3 / (e^3 + 1))",
            lambda: _contrast(0.6, 0.8),
            0.1 * math.log(1 + math.exp(-3)),
        ),
        ByHand(
            "cosines 1 and 0: the own one counts as 0.9 above, 1 below",
            lambda: _contrast(2.0, 0.0),
            0.1 * (math.log(math.exp(5) + 1) - 4.5),
        ),
        # Surrogate: (-1.3 - 0.9) / 2 and 1.1. Halved squared errors of V, the larger of plain and clipped: 0.3^2 (0
        # plain), 0.5^2; 1. Imitation: 1 - ln 2.
        OffPolicy(
            "ReFT's loss at contrast_weight = 0, five times the value loss",
            ratio=(1.5, 0.9, 1.1, 2.0),
            advantage=(1.0, 1.0, -1.0, 0.0),
            lengths=(2, 1, 1),
            weights={"policy": (1, 1, 1, 0), IMITATION: (0, 0, 0, 1)},
            extras={"returns": (1.0, 1.0, 1.0, 0.0), "values": (0.5, 0.5, 0.1, 0.0)},
            heads={"value": (1.0, 0.5, 0.0, 9.0)},
            loss=(-2.2 / 2 + 1.1) / 2 + 5 * ((0.3**2 + 0.5**2) / 2 / 2 + 1 / 2) / 2 + 1 - math.log(2),
            gradient=(0, -0.9 / 2 / 2, 1.1 / 2, -1),
            settings={"objective.contrast_weight": 0.0, "objective.clip_high": 0.3},
        ),
        Reduction(
            "without the contrast: ReFT",
            "reft",
            {"group_rollout.warmup_share": 0.0, "objective.contrast_weight": 0.0},
            {"group_rollout.warmup_share": 0.0},
        ),
    ),
)
