"""TULU 3's DPO: log-ratios a token, so that long answers weigh no more than short ones.

The second of three stages (imitation, preferences, verifiable rewards). The log-ratio of an answer is divided by its length before
two answers are compared; beta grows accordingly. TULU 3: Pushing Frontiers in Open Language Model Post-Training, arXiv
2411.15124, section 5."""

from __future__ import annotations

import math

from torch import Tensor

from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR, DpoBeta, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import OffPolicy, Paper, Recipe
from etude.settings import stage


def length_normalised(dpo_beta: DpoBeta = 5.0) -> Objective:
    """-log sigmoid(beta (d_w / |y_w| - d_l / |y_l|)), d = log pi(y) - log pi_ref(y); mean over pairs."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        lead = chosen.over_reference / chosen.length - rejected.over_reference / rejected.length
        return pair_loss(lead, dpo_beta)

    return over_pairs(loss)


LEAD = math.log(6) / 2 + math.log(4)  # of the row below
W = 1 / (1 + math.exp(0.5 * LEAD))

RECIPE = Recipe(
    name="tulu3_dpo",
    base=DPO,
    paper=Paper("TULU 3: Pushing Frontiers in Open Language Model Post-Training", "2411.15124", 2024),
    published_lr=5e-7,
    idea="As DPO, but what an answer gained against the starting model is counted a token. "
    "A long answer can then no longer win by its length. "
    "TULU 3 does this between imitation and training on checked answers.",
    equation="L = - mean log sigmoid(beta [log pi(y+)/ref(y+) / |y+| - log pi(y-)/ref(y-) / |y-|])",
    departures=("the stage of preferences alone; sft before it and ppo after it are recipes of their own",),
    stages={"objective": stage(length_normalised)},
    claim="Where chosen answers are longer, replies grow less than under DPO.",
    manipulation=(PREFERRED,),
    examples=(
        OffPolicy(
            "y+ of two tokens with log pi/ref = log 6, y- of one with -log 4; beta 0.5",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            settings={"objective.dpo_beta": 0.5},
            loss=math.log1p(math.exp(-0.5 * LEAD)),
            gradient=(-0.25 * W, -0.25 * W, 0.5 * W),
        ),
    ),
)
