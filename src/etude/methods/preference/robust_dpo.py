"""Robust DPO: the loss that DPO would have on clean labels, estimated from noisy ones.

Where a share epsilon of the labels is flipped, a weighted difference of the losses of a pair and of its opposite has the clean
loss as its expectation. Provably Robust DPO: Aligning Language Models with Noisy Feedback, arXiv 2403.00409, equation 11."""

from __future__ import annotations

import math

from torch import Tensor

from etude.methods.preference.cdpo import FlipRate
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR, DpoBeta, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import OffPolicy, Paper, Recipe, Reduction
from etude.settings import stage


def unbiased(dpo_beta: DpoBeta = 0.1, flip_rate: FlipRate = 0.1) -> Objective:
    """[-(1 - eps) log sigmoid(beta m) + eps log sigmoid(-beta m)] / (1 - 2 eps), m = d_w - d_l; mean over pairs."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        m = chosen.over_reference - rejected.over_reference
        clean = (1 - flip_rate) * pair_loss(m, dpo_beta) - flip_rate * pair_loss(-m, dpo_beta)
        return clean / (1 - 2 * flip_rate)

    return over_pairs(loss)


S = 1 / (1 + 24**-0.1)  # of the row below: sigmoid(beta m), m = log 24
SLOPE = 0.1 * (0.8 * (1 - S) + 0.2 * S) / 0.6

RECIPE = Recipe(
    name="robust_dpo",
    base=DPO,
    paper=Paper("Provably Robust DPO: Aligning Language Models with Noisy Feedback", "2403.00409", 2024),
    idea="Some pairs are labelled the wrong way round, and the share of those is known. "
    "The loss of a pair, less a share of that of its opposite, is on average what DPO would have on clean labels. "
    "In contrast to label smoothing it does not shrink the margin.",
    equation="L = [-(1 - eps) log sigmoid(beta m) + eps log sigmoid(- beta m)] / (1 - 2 eps)",
    stages={"objective": stage(unbiased)},
    claim="With a fifth of the labels flipped, held-out preference accuracy is higher than DPO's.",
    manipulation=(PREFERRED,),
    examples=(
        OffPolicy(
            "DPO's row of margin log 24; beta 0.1",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            settings={"objective.flip_rate": 0.2},
            loss=(-0.8 * math.log(S) + 0.2 * math.log(1 - S)) / 0.6,
            gradient=(-SLOPE, -SLOPE, SLOPE),
        ),
        Reduction("no label is wrong: DPO", "dpo", {"objective.flip_rate": 0.0}),
    ),
)
