"""IPO: a pair's log-ratio is drawn to a number, where DPO pushes it for ever.

DPO trusts that preferences follow the Bradley-Terry model; where one answer always wins, its optimum is an unbounded reward
and the reference is forgotten. IPO regresses the difference of log-ratios onto 1/(2 tau): beyond that point a pair pulls
back. A General Theoretical Paradigm to Understand Learning from Human Preferences, arXiv 2310.12036, equation 17."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR, Side, over_pairs
from etude.objective.terms import Objective
from etude.recipe import OffPolicy, Paper, Recipe
from etude.settings import Setting, stage


def squared_gap(
    ipo_tau: Annotated[
        float,
        Setting("tau: strength of the pull towards the reference; the gap aimed at is 1/(2 tau)", low=1e-6),
    ] = 0.1,
    per_token: Annotated[bool, Setting("log-ratios are means over an answer's tokens, not sums")] = True,
) -> Objective:
    """(d_w - d_l - 1/(2 tau))^2, d = log pi(y) - log pi_ref(y), divided by |y| with `per_token`; mean over pairs."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        better, worse = (s.over_reference / (s.length if per_token else 1) for s in (chosen, rejected))
        return (better - worse - 1 / (2 * ipo_tau)) ** 2

    return over_pairs(loss)


H = math.log(6) / 2 + math.log(4)  # of the row below, per token
H_SUM = math.log(6) + math.log(4)

RECIPE = Recipe(
    name="ipo",
    base=DPO,
    paper=Paper(
        "A General Theoretical Paradigm to Understand Learning from Human Preferences", "2310.12036", 2023
    ),
    idea="As DPO, two answers are compared against the starting model. "
    "The better one shall lead by a fixed amount, not by as much as possible: beyond it a pair pulls back. "
    "So pairs that are never contradicted do not drive the model away from where it started.",
    equation="L = mean (d+ - d- - 1/(2 tau))^2,  d = mean_t log pi(y_t)/ref(y_t)",
    departures=(
        "log-ratios are means over tokens, as TRL computes them by its authors' word; the equation has sums (objective.per_token=false)",
    ),
    stages={"objective": stage(squared_gap)},
    claim="On pairs without noise the log-ratio gap stays near 1/(2 tau), where DPO's goes on growing.",
    manipulation=(PREFERRED,),
    examples=(
        OffPolicy(
            "y+ of two tokens with log pi/ref = log 2 + log 3, y- of one with -log 4; 1/(2 tau) = 5",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            loss=(H - 5) ** 2,
            gradient=(H - 5, H - 5, -2 * (H - 5)),
        ),
        OffPolicy(
            "as sums, and beyond the gap that is aimed at (1/(2 tau) = 1): it pulls back",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            settings={"objective.per_token": False, "objective.ipo_tau": 0.5},
            loss=(H_SUM - 1) ** 2,
            gradient=(2 * (H_SUM - 1), 2 * (H_SUM - 1), -2 * (H_SUM - 1)),
        ),
    ),
)
