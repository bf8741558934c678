"""HelpSteer2-Preference: a reward model that learns how good answers are first, and then how much better one is.

Ratings and preferences say different things. The head first regresses the ratings; from there the Bradley-Terry loss is taken up,
each pair counted by how strong the preference is. HelpSteer2-Preference: Complementing Ratings with Preferences, arXiv
2410.01257."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.compared import compared
from etude.credit.pairs import Margin, Pairs
from etude.fixtures.compared import compared_row, example_pair
from etude.fixtures.given import GivenContext, given_stage
from etude.methods.reward_model.reward_model import RECIPE as REWARD_MODEL
from etude.models.outputs import Outputs
from etude.objective.compared import MEMBERS, RATING, REWARD, STRENGTH, ComparedPairs, over_comparisons
from etude.objective.preference import PAIR, pair_loss
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

RATED = "rated"  # weight row: the ends of answers whose rating is regressed


@writes(REWARD, RATED, extras=(PAIR, STRENGTH, RATING, MEMBERS))
def rated_then_compared(
    regression_share: Annotated[
        float, Setting("share of the run in which ratings are regressed, before preferences", low=0, high=1)
    ] = 0.5,
    pairs: Pairs = 1,
    margin: Margin = 1e-6,
) -> Credit:
    """Until `regression_share` of the run, answers that have a rating, to be regressed; pairs, to be compared, after it, and of
    tasks without ratings."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = [s for g in groups for s in compared(g, context, pairs, margin)]
        if context.progress >= regression_share:
            return signals
        return [_rated(s) if np.isfinite(s.extras[RATING]).all() else s for s in signals]

    return credit


def _rated(signal: Signal) -> Signal:
    return replace(signal, advantage=0 * signal.advantage, weights={RATED: signal.weights[REWARD]})


def by_strength(
    strength_use: Annotated[
        str,
        Setting(
            "what a preference's strength m does: it scales the loss, is a margin, or nothing",
            choices=("scaled", "margin", "off"),
        ),
    ] = "scaled",
) -> Objective:
    """Of pairs -m log sigmoid(d) (scaled), -log sigmoid(d - m) (margin) or -log sigmoid(d), d = r(y+) - r(y-); of ratings
    (r(y) - h)^2. Means over pairs, and over answers."""

    def loss(pairs: ComparedPairs) -> Tensor:
        m = pairs.strength[:, None]
        if strength_use == "margin":
            return pair_loss(pairs.margin - m, 1.0)
        return (m if strength_use == "scaled" else 1.0) * pair_loss(pairs.margin, 1.0)

    def rating(out: Outputs, batch: Batch) -> TokenLoss:
        return (out.heads[REWARD][:, 0] - batch.extras[RATING].nan_to_num()) ** 2

    regression = Term("rating", rating, sum_per_episode, weight=RATED)
    return over_comparisons(loss) + objective(regression, unit="group")


def credited() -> list[list[float]]:
    """Weights of both rows at the answers' ends, early and late, of a pair with ratings and of one without."""
    found = []
    for meta in ({"rating_chosen": 4.0, "rating_rejected": 1.0}, {}):
        for progress in (0.0, 0.9):
            signals = given_stage(RECIPE, "credit")([example_pair(**meta)], GivenContext(progress=progress))
            found.append(
                [float(s.weights[n][-1]) if n in s.weights else 0.0 for s in signals for n in (RATED, REWARD)]
            )
    return found


RECIPE: Recipe = Recipe(
    name="helpsteer2_preference",
    base=REWARD_MODEL,
    paper=Paper("HelpSteer2-Preference: Complementing Ratings with Preferences", "2410.01257", 2024),
    idea="Ratings say how good an answer is, preferences which of two is better and by how much. "
    "A reward model first learns the ratings, and from there the preferences, the strong ones counting more.",
    equation="first L = mean (r(y) - h)^2;  then L = - mean m log sigmoid(r(y+) - r(y-)), m in {1, 2, 3}",
    departures=(
        "one run whose first part regresses; the paper trains two models, the second initialised from the first",
        "the extrapolation of weights that it does last (ExPO) is left out",
        "pairs without a strength count 1",
    ),
    confidence="memory",
    stages={"credit": stage(rated_then_compared), "objective": stage(by_strength)},
    claim="On graded synthetic preferences accuracy is at least that of plain Bradley-Terry, and with few pairs regression first helps.",
    manipulation=(Manipulated("six pairs in ten are told apart at last", "preferred", 0.6, read="last"),),
    examples=(
        ByHand(
            "ratings early, pairs late; without ratings always pairs",
            credited,
            [[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1]],
        ),
        compared_row(
            "strength 3: three times log(1 + exp(-1.5))",
            (2.0, 0.5),
            3 * math.log1p(math.exp(-1.5)),
            strength=3.0,
        ),
        compared_row(
            "as a margin: log(1 + exp(-(1.5 - 3)))",
            (2.0, 0.5),
            math.log1p(math.exp(1.5)),
            {"objective.strength_use": "margin"},
            strength=3.0,
        ),
        OffPolicy(
            "numbers 2 and 0.5 where the ratings are 4 and 1: (2^2 + 0.5^2) / 2",
            ratio=(2.0, 0.5),
            advantage=(0.0, 0.0),
            lengths=(1, 1),
            weights={RATED: (1.0, 1.0)},
            extras={PAIR: (1, 1), STRENGTH: (1, 1), RATING: (4.0, 1.0), MEMBERS: (1, 1)},
            heads={REWARD: (2.0, 0.5)},
            loss=(4 + 0.25) / 2,
            gradient=(0.0, 0.0),
        ),
        Reduction(
            "every preference equally strong: Bradley-Terry",
            "reward_model",
            {"objective.strength_use": "off"},
        ),
    ),
)
