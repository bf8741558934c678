"""A reward model: from pairs of answers, a number for each, such that the better of a pair has the larger one.

The Bradley-Terry model says that y+ is preferred to y- with probability sigmoid(r(y+) - r(y-)); its likelihood is maximised. The
number is a linear head on the language model, read where the answer ends. Learning to summarize from human feedback, arXiv
2009.01325, section 3.4; the optional centring is that of arXiv 2312.09244."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from etude.credit.compared import compared_pairs
from etude.fixtures.compared import compared_row, example_pair
from etude.fixtures.given import GivenContext, given_stage
from etude.objective.compared import REWARD, STRENGTH, ComparedPairs, Members, over_comparisons, seen_by
from etude.objective.preference import pair_loss
from etude.objective.terms import Objective
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.rollout.pairs import pairs_or_attempts
from etude.settings import Setting, stage


def bradley_terry(
    members: Members = 1,
    centre_weight: Annotated[
        float, Setting("weight of (r+ + r-)^2, which keeps the numbers around 0", low=0)
    ] = 0.0,
) -> Objective:
    """-log sigmoid(r(y+) - r(y-)) + c (r(y+) + r(y-))^2; mean over pairs and members."""

    def loss(pairs: ComparedPairs) -> Tensor:
        return pair_loss(pairs.margin, 1.0) + centre_weight * (pairs.chosen + pairs.rejected) ** 2

    return over_comparisons(loss, members)


def credited() -> list[list[float]]:
    """Weight, advantage and strength at the ends of a pair of strength 2; nothing on any other token."""
    signals = given_stage(RECIPE, "credit")([example_pair(strength=2.0)], GivenContext())
    rows = [(s.weights[REWARD], s.advantage, s.extras[STRENGTH]) for s in signals]
    return [[float(w.sum()), *(float(r[-1]) for r in row)] for row in rows for w in row[:1]]


RECIPE: Recipe = Recipe(
    name="reward_model",
    paper=Paper("Learning to summarize from human feedback", "2009.01325", 2020),
    published_lr=1.5e-5,
    idea="Given two answers of which one is preferred, the model learns a number for each. "
    "The difference of the numbers says how likely the one is to be preferred. "
    "What comes out is not a policy but a reward: --reward model:RUN.",
    equation="L = - mean log sigmoid(r(x, y+) - r(x, y-)) + c (r(x, y+) + r(x, y-))^2",
    departures=(
        "an ensemble is several heads on one trunk, each of which sees a keyed draw of four fifths of the pairs; papers train whole models",
        "where the tasks bring no pairs, the best and the worst attempt of a group are one, by the tasks' own verdicts",
    ),
    stages={
        "group_rollout": stage(pairs_or_attempts),
        "credit": stage(compared_pairs),
        "objective": stage(bradley_terry),
    },
    claim="On pairs with a known rule (the shorter, the rhyming answer) nine held-out pairs in ten are told apart.",
    manipulation=(Manipulated("six pairs in ten are told apart at last", "preferred", 0.6, read="last"),),
    examples=(
        ByHand("one token of each answer: its end", credited, [[1, 1, 1, 2], [1, 1, -1, 2]]),
        compared_row("numbers 2 and 0.5: log(1 + exp(-1.5))", (2.0, 0.5), math.log1p(math.exp(-1.5))),
        compared_row("the wrong way round", (0.5, 2.0), math.log1p(math.exp(1.5))),
        compared_row(
            "centred: 0.1 (2 + 0.5)^2 more",
            (2.0, 0.5),
            math.log1p(math.exp(-1.5)) + 0.1 * 6.25,
            {"objective.centre_weight": 0.1},
        ),
        ByHand(
            "of three members the bits 5 say that the first and the third see the pair",
            lambda: seen_by(torch.tensor([5.0, 0.0]), 3),
            [[1, 0, 1], [1, 1, 1]],
        ),
    ),
)
