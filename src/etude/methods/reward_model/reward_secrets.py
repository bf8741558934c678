"""RLHF secrets II: an ensemble says which labels are wrong, and the reward model learns from what it says.

Several reward models judge each pair; where on average they say the opposite of its label by much, the label is taken to be
wrong and flipped, and by how much they agree is the margin that the pair is to reach. Secrets of RLHF in Large Language Models
Part II: Reward Modeling, arXiv 2401.06080."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from etude.channels import writes
from etude.credit.compared import compared
from etude.credit.pairs import Margin, Pairs
from etude.fixtures.compared import compared_row, example_pair
from etude.fixtures.given import given_stage
from etude.methods.reward_model.reward_model import RECIPE as REWARD_MODEL
from etude.methods.reward_model.reward_model import bradley_terry
from etude.objective.compared import MEMBERS, RATING, REWARD, STRENGTH, ComparedPairs, over_comparisons
from etude.objective.preference import PAIR, pair_loss
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Group, Signal, Task

JUDGES = 10  # members of the ensemble


@writes(REWARD, extras=(PAIR, STRENGTH, RATING, MEMBERS))
class Cleaned:
    """Pairs whose strength u is the mean margin of the ensemble's members; after `trust_after` of the run the `flip_share` of a
    step's pairs with the lowest u, where that is negative, have their labels flipped. The ensemble learns from every step's
    pairs as they are labelled, after it has judged them."""

    def __init__(
        self,
        flip_share: Annotated[
            float, Setting("share of a step's pairs that are flipped", low=0, high=0.5)
        ] = 0.2,
        trust_after: Annotated[
            float, Setting("share of the run after which the ensemble is believed", low=0, high=1)
        ] = 0.3,
        pairs: Pairs = 1,
        margin: Margin = 1e-6,
    ) -> None:
        self.flip_share, self.trust_after, self.pairs, self.margin = flip_share, trust_after, pairs, margin
        self.flipped = 0.0

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = [s for g in groups for s in compared(g, context, self.pairs, self.margin)]
        signals = [s for s, both in zip(signals, _both(signals), strict=True) if both]
        if not signals:
            return []
        judges = context.auxiliary["judges"]
        u = self._strengths(signals, context, judges)
        judges.learn(bradley_terry(JUDGES), signals, context.step, context.progress)
        if context.progress < self.trust_after:
            return [replace(s, extras={**s.extras, STRENGTH: 0 * s.extras[STRENGTH]}) for s in signals]
        lowest = np.argsort(u[0::2], kind="stable")[: round(self.flip_share * (len(u) // 2))]
        flip = np.zeros(len(u) // 2, bool)
        flip[lowest] = u[0::2][lowest] < 0
        self.flipped = float(flip.mean())
        return [
            _relabelled(s, value, wrong)
            for s, value, wrong in zip(signals, u, np.repeat(flip, 2), strict=True)
        ]

    def _strengths(self, signals: Sequence[Signal], context: Context, judges: Any) -> Array:
        """f64[2P]: the mean margin of each pair, once for either of its answers, which lie side by side, chosen first."""
        rows = context.rows(signals, lambda out: out.heads[REWARD], policy=judges.policy)
        numbers = np.array(
            [float(r[s.weights[REWARD] != 0].mean()) for r, s in zip(rows, signals, strict=True)]
        )
        return np.repeat(numbers[0::2] - numbers[1::2], 2)

    def report(self) -> dict[str, float]:
        return {"flipped": self.flipped}


def _both(signals: Sequence[Signal]) -> list[bool]:
    """Whether each signal is one of two answers of a pair; answers with a label alone cannot be compared."""
    sides: dict[tuple[str, float], int] = {}
    keys = [(s.episode.task.key, float(s.extras[PAIR].max())) for s in signals]
    for key in keys:
        sides[key] = sides.get(key, 0) + 1
    return [sides[key] == 2 for key in keys]


def _relabelled(signal: Signal, strength: float, wrong: bool) -> Signal:
    row = np.float32(abs(strength) if wrong else strength) * signal.weights[REWARD]
    sign = -1 if wrong else 1
    return replace(
        signal, advantage=np.float32(sign) * signal.advantage, extras={**signal.extras, STRENGTH: row}
    )


def adaptive_margin(
    margin_weight: Annotated[float, Setting("share of the strength u that is the margin", low=0)] = 1.0,
    smoothing: Annotated[
        float, Setting("probability that the label of a pair with u < 0 is wrong", low=0, high=0.5)
    ] = 0.0,
) -> Objective:
    """-(1 - a) log sigmoid(d - u) - a log sigmoid(-(d - u)), d = r(y+) - r(y-), u = margin_weight x strength, and a = `smoothing`
    where the strength is negative, else 0; mean over pairs."""

    def loss(pairs: ComparedPairs) -> Tensor:
        strength = pairs.strength[:, None]
        lead = pairs.margin - margin_weight * strength
        a = smoothing * (strength < 0).to(lead)
        return (1 - a) * pair_loss(lead, 1.0) + a * pair_loss(-lead, 1.0)

    return over_comparisons(loss)


def credited(progress: float) -> list[list[float]]:
    """Advantage and strength at the ends, of five pairs that the ensemble gives the margins 3, 1, -1, -2, 2; of each pair's
    answers in turn, the chosen one's."""
    margins = (3.0, 1.0, -1.0, -2.0, 2.0)
    pair = example_pair()
    groups = []
    for i in range(len(margins)):
        task = Task(str(i), pair.task.check)  # type: ignore[arg-type]
        groups.append(replace(pair, task=task, episodes=tuple(replace(e, task=task) for e in pair.episodes)))

    def rows(signals: Sequence[Signal], read: Any, policy: Any = None) -> list[Array]:
        worth = [m for margin in margins for m in (margin, 0.0)]
        return [np.full((len(s.advantage), 1), w) for s, w in zip(signals, worth, strict=True)]

    judges = SimpleNamespace(policy=None, learn=lambda *lesson: None)
    context = SimpleNamespace(seed=0, step=0, progress=progress, rows=rows, auxiliary={"judges": judges})
    signals = given_stage(RECIPE, "credit")(groups, context)
    return [[float(s.advantage[-1]), float(s.extras[STRENGTH][-1])] for s in signals[0::2]]


RECIPE: Recipe = Recipe(
    name="reward_secrets",
    base=REWARD_MODEL,
    paper=Paper("Secrets of RLHF in Large Language Models Part II: Reward Modeling", "2401.06080", 2024),
    published_lr=5e-6,
    idea="An ensemble of reward models says how sure each preference is. "
    "Labels that it contradicts most are flipped, and sure preferences must be told apart by a wider margin. "
    "So a few wrong labels do less harm.",
    equation="u = mean_m [r_m(y+) - r_m(y-)];  flip the fifth with the lowest u < 0;  L = - mean log sigmoid(r(y+) - r(y-) - u)",
    departures=(
        "the ensemble is ten heads on one trunk that learn beside the reward model, in the same run; the paper trains ten models beforehand",
        "the share is of each step's pairs, and only labels that the ensemble contradicts (u < 0) are flipped",
        "the contrastive loss and MetaRM are left out",
    ),
    stages={"credit": stage(Cleaned), "objective": stage(adaptive_margin)},
    auxiliary={"judges": AuxiliaryModel("copy", lr=1.0, heads={REWARD: JUDGES})},
    claim="With a fifth of the labels flipped, held-out accuracy is higher than that of plain Bradley-Terry.",
    manipulation=(Manipulated("a label in twenty is flipped", "credit.flipped", 0.05, read="max"),),
    examples=(
        ByHand(
            "of five pairs one, that with u = -2, is flipped; every strength is its margin",
            lambda: credited(0.9),
            [[1, 3], [1, 1], [1, -1], [-1, 2], [1, 2]],
        ),
        ByHand("before the ensemble is believed: labels as they are", lambda: credited(0.1), [[1, 0]] * 5),
        compared_row(
            "numbers 2 and 0.5, strength 1: log(1 + exp(-0.5))",
            (2.0, 0.5),
            math.log1p(math.exp(-0.5)),
            strength=1.0,
        ),
        compared_row(
            "half of the strength -2 as margin, smoothed by 0.2: lead 2.5",
            (2.0, 0.5),
            0.8 * math.log1p(math.exp(-2.5)) + 0.2 * math.log1p(math.exp(2.5)),
            {"objective.margin_weight": 0.5, "objective.smoothing": 0.2},
            strength=-2.0,
        ),
        Reduction(
            "nothing flipped, no margin: Bradley-Terry",
            "reward_model",
            {"credit.flip_share": 0.0, "objective.margin_weight": 0.0},
        ),
    ),
)
