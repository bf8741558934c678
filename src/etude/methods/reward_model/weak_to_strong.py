"""Weak to strong: a strong reward model learns from the labels of a weak one, and may trust itself where it is sure.

A weak supervisor errs. A strong model that imitates it faithfully errs likewise; but what it knows already makes some labels look
wrong. Beside the weak labels, its own verdict, hardened to yes or no, is a label too, with a weight that grows from 0. How much of the
distance from the weak supervisor to a strong model with true labels is bridged is the performance gap recovered (`etude study
weak_to_strong`). Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision, arXiv 2312.09390; the loss as
`logconf_loss_fn` of the released code (openai/weak-to-strong, `weak_to_strong/loss.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude.channels import writes
from etude.credit.compared import compared
from etude.credit.pairs import Margin, Pairs
from etude.fixtures.compared import compared_row, example_pair
from etude.fixtures.given import GivenContext, given_stage
from etude.methods.reward_model.reward_model import RECIPE as REWARD_MODEL
from etude.objective.compared import MEMBERS, RATING, REWARD, STRENGTH, ComparedPairs, over_comparisons
from etude.objective.preference import PAIR, pair_loss
from etude.objective.terms import Objective
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

TRUST = "trust"  # extra: the weight of the strong model's own verdict


@writes(REWARD, extras=(PAIR, STRENGTH, RATING, MEMBERS, TRUST))
def weak_labels(
    trust: Annotated[float, Setting("a: weight of the model's own verdict, at most", low=0, high=1)] = 0.5,
    trust_warmup: Annotated[
        float, Setting("share of the run over which that weight grows from 0", low=0, high=1)
    ] = 0.1,
    pairs: Pairs = 1,
    margin: Margin = 1e-6,
) -> Credit:
    """Pairs as the weak supervisor labels them: the one that it prefers is `chosen`, its log-odds are `strength`. Extra `TRUST`:
    a min(1, progress / warm-up)."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        now = trust * (min(1.0, context.progress / trust_warmup) if trust_warmup else 1.0)
        found = []
        for signal in (s for g in groups for s in compared(g, context, pairs, margin)):
            row = np.float32(now) * signal.weights[REWARD]
            found.append(replace(signal, extras={**signal.extras, TRUST: row}))
        return found

    return credit


def confident(
    hard_labels: Annotated[
        bool, Setting("the weak supervisor's labels as yes or no, and not as probabilities")
    ] = False,
) -> Objective:
    """-t log sigmoid(d) - (1 - t) log sigmoid(-d), d = r(y+) - r(y-), t = (1 - a) w + a 1[d > 0], w = sigmoid(strength) or 1; a
    mean over pairs. No gradient goes through t."""

    def loss(pairs: ComparedPairs) -> Tensor:
        d = pairs.margin
        weak = torch.ones_like(d) if hard_labels else torch.sigmoid(pairs.strength[:, None]).to(d)
        a = pairs.extras[TRUST][:, None]
        target = (1 - a) * weak + a * (d.detach() > 0).to(d)
        return target * pair_loss(d, 1.0) + (1 - target) * pair_loss(-d, 1.0)

    return over_comparisons(loss, extras=(TRUST,))


def credited() -> list[list[float]]:
    """Strength and trust at both ends of a pair of log-odds 2, at these shares of a run."""
    found = []
    for progress in (0.0, 0.05, 0.5):
        signals = given_stage(RECIPE, "credit")([example_pair(strength=2.0)], GivenContext(progress=progress))
        found += [[float(s.extras[n][-1]) for n in (STRENGTH, TRUST)] for s in signals]
    return found


def bce(target: float, d: float) -> float:
    return target * math.log1p(math.exp(-d)) + (1 - target) * math.log1p(math.exp(d))


RECIPE: Recipe = Recipe(
    name="weak_to_strong",
    base=REWARD_MODEL,
    paper=Paper(
        "Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision",
        "2312.09390",
        2023,
    ),
    idea="The labels come from a weaker model and are often wrong. "
    "The strong model learns from them, but what it says itself counts as a label too, more and more as training goes on. "
    "So it need not imitate errors that contradict what it knows.",
    equation="L = - t log sigmoid(d) - (1 - t) log sigmoid(-d),  t = (1 - a) sigmoid(d_weak) + a 1[d > 0],  d = r(y+) - r(y-)",
    departures=(
        "preferences, one of the paper's three settings, and not single questions: of a pair the two orders are alike, so the threshold that "
        "keeps the share of yes at its mean is 1/2",
        "a grows to 0.5 over the first tenth of the run, as the released code sets it (its weight is there the fraction of steps, and jumps); "
        "the paper has 0.75 for large gaps and a fifth of the run (from memory)",
        "one head, where reward models of etude may have several",
    ),
    stages={"credit": stage(weak_labels), "objective": stage(confident)},
    claim="A strong reward model that learns from a weak one's labels is right more often than it, and more so with its own verdict as a label.",
    manipulation=(Manipulated("six pairs in ten are told apart at last", "preferred", 0.6, read="last"),),
    examples=(
        ByHand(
            "nothing at first, half of it, all", credited, [[2, 0]] * 2 + [[2, 0.25]] * 2 + [[2, 0.5]] * 2
        ),
        compared_row(
            "weak log-odds log 3, so w = 3/4; sure of the same: t = 3/4 x 3/4 + 1/4",
            (2.0, 0.5),
            bce(0.75 * 0.75 + 0.25, 1.5),
            strength=math.log(3),
            trust=0.25,
        ),
        compared_row(
            "sure of the contrary: t = 3/4 x 3/4",
            (0.5, 2.0),
            bce(0.75 * 0.75, -1.5),
            strength=math.log(3),
            trust=0.25,
        ),
        compared_row(
            "hard labels: t = 3/4",
            (0.5, 2.0),
            bce(0.75, -1.5),
            {"objective.hard_labels": True},
            strength=math.log(3),
            trust=0.25,
        ),
        Reduction(
            "hard labels without trust: a reward model on what the weak one says",
            "reward_model",
            {"objective.hard_labels": True, "credit.trust": 0.0},
        ),
    ),
)
