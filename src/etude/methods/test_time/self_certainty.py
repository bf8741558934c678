"""Self-certainty (Kang et al., arXiv 2502.18581): the further the model's distributions are from uniform, token by token, the
more an answer counts.

    SC(y) = (1/n) sum_i KL(U || p(. | x, y_<i)) = mean_i [ log sum_j exp z_ij - mean_j z_ij - log V ]

over the n tokens of the reply, z the logits at temperature 1. Of N samples sorted by SC, the r-th counts (N - r + 1)^p votes
(Borda). p = 0 is a majority vote; a large p gives the most certain answer.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.test_time.majority import Samples
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.search.session import Answering, Draft, Session, answering
from etude.search.vote import weighted
from etude.settings import Setting, stage

Power = Annotated[float, Setting("p, how much more the most certain count; 0: not at all", low=0, high=100)]


def self_certainty(n: Samples = 16, power: Power = 0.5) -> Answering:
    """A Borda vote of n samples, ranked by self-certainty."""

    async def method(session: Session) -> Draft:
        drafts = await session.drafts(n, "sample")
        for draft in drafts:
            session.mark(draft.node, score=draft.certainty)
        return weighted(drafts, borda([d.certainty for d in drafts], power))

    return answering(method, certainty=True)


def borda(scores: list[float], power: float) -> list[float]:
    """(N - r + 1)^p, r the rank of each score from 1, the highest; of equal scores the first ranks higher. Over N^p, which
    keeps large powers finite."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    votes = np.empty(len(scores))
    votes[order] = (np.arange(len(scores), 0, -1) / len(scores)) ** power
    return [float(v) for v in votes]


SAID = (Reply("5", certainty=1.0), Reply("7", certainty=3.0), Reply("5", certainty=2.0))

RECIPE: Recipe = Recipe(
    name="self_certainty",
    paper=Paper(
        "Scalable Best-of-N Selection for Large Language Models via Self-Certainty", "2502.18581", 2025
    ),
    idea="Draws several answers and lets the more certain ones count for more in the vote. How certain the model was is read off "
    "its own distributions, so no judge and no second model is needed. Ranks are counted, not the numbers themselves.",
    equation="SC = mean_i [logsumexp z_i - mean z_i - log V];  argmax_a sum_{i: a_i = a} (N - r_i + 1)^p",
    stages={"rollout": stage(self_certainty)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=("p = 1/2, the default of the released script; the paper raises it with N",),
    claim="A Borda vote is no less accurate than majority, and the most certain answer is righter than the likeliest one.",
    examples=(
        ByHand("ranks 3, 1, 2 of three at p = 1", lambda: borda([1.0, 3.0, 2.0], 1.0), [1 / 3, 1, 2 / 3]),
        ByHand(
            "5 has ranks 3 and 2, 7 rank 1: at p = 1, 1 + 2 = 3 for either and the first is given; at p = 0, 2 to 1; at 2, 5 to 9",
            lambda: [
                float(answered(RECIPE, *SAID, settings={"n": 3, "power": p}).text) for p in (1.0, 0.0, 2.0)
            ],
            [5, 5, 7],
        ),
        Reduction("p = 0: majority", "majority", {"rollout.power": 0.0}),
    ),
)
