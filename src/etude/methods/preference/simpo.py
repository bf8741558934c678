"""SimPO: the reward that a policy gives an answer is its mean log-probability a token, and no reference model is needed.

DPO's reward compares with a reference, while a policy generates by its own likelihood; and sums over tokens favour length. SimPO
ranks by what generation maximises, and asks for a margin. SimPO: Simple Preference Optimization with a Reference-Free Reward,
arXiv 2405.14734, equation 6."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import OffPolicy, Paper, Recipe
from etude.settings import Setting, stage


def mean_likelihood(
    simpo_beta: Annotated[float, Setting("beta: scale of the mean log-probabilities", low=0)] = 2.0,
    target_margin: Annotated[float, Setting("gamma: by how much the better answer shall lead", low=0)] = 1.0,
) -> Objective:
    """-log sigmoid(beta (log pi(y+)/|y+| - log pi(y-)/|y-|) - gamma); mean over pairs."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        lead = chosen.logp / chosen.length - rejected.logp / rejected.length
        return pair_loss(simpo_beta * lead - target_margin, 1.0)

    return over_pairs(loss, reference=False)


LEAD = 1.5 * math.log(2)  # of the row below: (-2 + log 2) / 2 - (-1 - log 2)
W = 1 / (1 + math.exp(2 * LEAD - 0.5))  # sigmoid(-(beta lead - gamma))

RECIPE = Recipe(
    name="simpo",
    base=DPO,
    paper=Paper("SimPO: Simple Preference Optimization with a Reference-Free Reward", "2405.14734", 2024),
    published_lr=1e-6,
    idea="An answer is worth its mean log-probability a token, which is what the model goes by when it writes. "
    "The better answer of a pair shall lead by a margin. No starting model is kept, and length buys nothing.",
    equation="L = - mean log sigmoid(beta log pi(y+)/|y+| - beta log pi(y-)/|y-| - gamma)",
    departures=("beta 2 and gamma 1 (the paper tunes beta in 2..2.5 and gamma in 0.3..1.6)",),
    stages={"objective": stage(mean_likelihood)},
    claim="On pairs in which the chosen answer is often longer, replies grow less than under DPO.",
    manipulation=(PREFERRED,),
    examples=(
        OffPolicy(
            "y+ of two tokens, log pi = -2 + log 2; y- of one, -1 - log 2; beta 2, gamma 0.5",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={PAIR: (1, 1, 1)},
            settings={"objective.target_margin": 0.5},
            loss=math.log1p(math.exp(-(2 * LEAD - 0.5))),
            gradient=(-W, -W, 2 * W),
        ),
    ),
)
