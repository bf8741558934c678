"""ORPO: imitation of the better answer, with a penalty on the odds of the worse one; one stage, no reference.

Cross-entropy on good answers also raises the likelihood of bad ones that look alike. ORPO adds the log odds ratio of the two
to it. ORPO: Monolithic Preference Optimization without Reference Model, arXiv 2403.07691, equations 4 to 7."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from etude.credit.imitate import IMITATION
from etude.credit.pairs import pairs_and_chosen
from etude.methods.preference.cpo import imitated
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.imitation import imitation
from etude.objective.preference import PAIR, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import ByHand, OffPolicy, Paper, Recipe
from etude.settings import Setting, stage


def log_odds(side: Side) -> Tensor:
    """f32[P]: log(p / (1 - p)), p = exp(log pi(y|x) / |y|), the geometric mean of its tokens' probabilities."""
    mean = (side.logp / side.length).clamp(max=-1e-7)  # p = 1 has no odds
    return mean - torch.log(-torch.expm1(mean))


def odds_ratio(
    odds_weight: Annotated[
        float, Setting("lambda: weight of the odds ratio beside the cross-entropy", low=0)
    ] = 0.1,
) -> Objective:
    """-mean_t log pi(y+_t) - lambda log sigmoid(log odds(y+) - log odds(y-)), mean over pairs."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        return odds_weight * pair_loss(log_odds(chosen) - log_odds(rejected), 1.0)

    return over_pairs(loss, imitation(), reference=False)


P, Q = math.exp((-2 + math.log(2)) / 2), math.exp(-1 - math.log(2))  # of the row below
R = math.log(P / (1 - P)) - math.log(Q / (1 - Q))
W = 0.1 / (1 + math.exp(R))  # d loss / d (mean log p) of y+ is -W / (1 - P)

RECIPE: Recipe = Recipe(
    name="orpo",
    base=DPO,
    paper=Paper("ORPO: Monolithic Preference Optimization without Reference Model", "2403.07691", 2024),
    published_lr=8e-6,
    idea="The better answer of a pair is imitated, as in supervised fine-tuning. "
    "At the same time its odds are raised against those of the worse one. "
    "One stage does both, and no starting model is kept.",
    equation="L = - mean_t log pi(y+_t) - lambda mean log sigmoid(log odds(y+)/odds(y-)),  odds = p/(1 - p), p = pi(y)^(1/|y|)",
    departures=("the prompt is not imitated; the released trainers also put cross-entropy on it",),
    stages={"credit": stage(pairs_and_chosen), "objective": stage(odds_ratio)},
    claim="Against imitation of the chosen answers alone, the rejected ones become less likely.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand("the better answer alone is imitated", lambda: imitated(RECIPE), [[1, 1], [-1, 0]]),
        OffPolicy(
            "y+ of two tokens with p = exp(-1 + log(2)/2), y- of one with p = exp(-1)/2; lambda 0.1",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            weights={"policy": (1, 1, 1), IMITATION: (1, 1, 0)},
            extras={PAIR: (1, 1, 1)},
            loss=(2 - math.log(2)) / 2 + 0.1 * math.log1p(math.exp(-R)),
            gradient=(-0.5 - W / (1 - P) / 2, -0.5 - W / (1 - P) / 2, W / (1 - Q)),
        ),
    ),
)
