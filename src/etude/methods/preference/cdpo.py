"""cDPO: DPO that allows for a share of wrong labels.

Were a share epsilon of the pairs labelled the wrong way round, the log-likelihood of the labels would be a mixture; training on
it stops at a gap of log((1 - epsilon) / epsilon) instead of going on for ever. A note on DPO with noisy preferences and the
relationship to IPO (Mitchell, 2023); the same as label smoothing in arXiv 2305.18290's code."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR, DpoBeta, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage

FlipRate = Annotated[
    float, Setting("epsilon: share of the pairs that are labelled the wrong way round", low=0, high=0.499)
]


def smoothed(dpo_beta: DpoBeta = 0.1, flip_rate: FlipRate = 0.1) -> Objective:
    """-(1 - eps) log sigmoid(beta m) - eps log sigmoid(-beta m), m = d_w - d_l; mean over pairs."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        m = chosen.over_reference - rejected.over_reference
        return (1 - flip_rate) * pair_loss(m, dpo_beta) + flip_rate * pair_loss(-m, dpo_beta)

    return over_pairs(loss)


S = 1 / (1 + 24**-0.1)  # of the row below: sigmoid(beta m), m = log 24
SLOPE = 0.1 * (0.8 * (1 - S) - 0.2 * S)

RECIPE = Recipe(
    name="cdpo",
    base=DPO,
    paper=Paper("A note on DPO with noisy preferences & relationship to IPO", "", 2023),
    idea="Some pairs are labelled the wrong way round. "
    "Each pair is therefore believed with probability 1 - epsilon and its opposite with probability epsilon, and beyond the "
    "margin that this would explain a pair pulls back.",
    equation="L = - (1 - eps) log sigmoid(beta m) - eps log sigmoid(- beta m),  m = log pi(y+)/ref(y+) - log pi(y-)/ref(y-)",
    stages={"objective": stage(smoothed)},
    claim="On pairs without noise the margin stops near log((1 - eps)/eps)/beta, where DPO's goes on growing.",
    manipulation=(PREFERRED,),
    examples=(
        OffPolicy(
            "DPO's row of margin log 24; beta 0.1",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            settings={"objective.flip_rate": 0.2},
            loss=-0.8 * math.log(S) - 0.2 * math.log(1 - S),
            gradient=(-SLOPE, -SLOPE, SLOPE),
        ),
        Reduction("no label is wrong: DPO", "dpo", {"objective.flip_rate": 0.0}),
    ),
)
