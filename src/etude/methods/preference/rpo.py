"""RPO: DPO with the better answer imitated beside it, which is what pessimism about the reward comes to.

Maximising over policies against the worst reward that the preferences allow, and swapping the two, leaves DPO plus cross-entropy
on the answers of a baseline policy. Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial
Regularizer, arXiv 2405.16436."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from etude.credit.imitate import IMITATION
from etude.credit.pairs import pairs_and_chosen
from etude.methods.preference.cpo import imitated
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.imitation import imitation
from etude.objective.preference import PAIR, DpoBeta, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage


def pessimistic(
    dpo_beta: DpoBeta = 0.1,
    pessimism: Annotated[
        float, Setting("eta: the better answer's negative log-likelihood counts eta x beta", low=0)
    ] = 0.005,
    mean: Annotated[
        str,
        Setting(
            "log-likelihood summed over an answer's tokens, or a mean over all tokens",
            choices=("sum", "token"),
        ),
    ] = "sum",
) -> Objective:
    """-log sigmoid(beta (d_w - d_l)) - eta beta log pi(y_w), both a mean over pairs."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        return pair_loss(chosen.over_reference - rejected.over_reference, dpo_beta)

    return over_pairs(loss, imitation(pessimism * dpo_beta, mean))


W = 1 / (1 + 24**0.1)  # DPO's row: sigmoid(-beta margin)

RECIPE: Recipe = Recipe(
    name="rpo",
    base=DPO,
    paper=Paper(
        "Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial Regularizer",
        "2405.16436",
        2024,
    ),
    published_lr=5e-7,
    idea="DPO may lower the likelihood of both answers, as long as that of the worse one falls faster. "
    "Here the better answer is imitated beside it. "
    "That is what distrust of a reward learned from few preferences comes to.",
    equation="L = - mean log sigmoid(beta [d+ - d-]) - eta beta mean log pi(y+),  d = log pi(y)/ref(y)",
    departures=("beta is DPO's 0.1 here; the paper has 0.01 (Zephyr) and 0.05 (Gemma), with eta 0.005",),
    stages={"credit": stage(pairs_and_chosen), "objective": stage(pessimistic)},
    claim="The chosen answer's log-likelihood falls in DPO and stays or rises with RPO.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand("the better answer alone is imitated", lambda: imitated(RECIPE), [[1, 1], [-1, 0]]),
        OffPolicy(
            "DPO's row of margin log 24, and 2 beta times the negative log-likelihood of y+, 2 - log 2",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            weights={"policy": (1, 1, 1), IMITATION: (1, 1, 0)},
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            settings={"objective.pessimism": 2.0},
            loss=-math.log(1 - W) + 0.2 * (2 - math.log(2)),
            gradient=(-0.1 * W - 0.2, -0.1 * W - 0.2, 0.1 * W),
        ),
        Reduction("eta 0: DPO", "dpo", {"objective.pessimism": 0.0}),
    ),
)
