"""Token-uncertainty cascades (Gupta et al., arXiv 2404.10136): a small model answers, and a larger one is asked where the small
one was unsure of its weakest tokens.

Of the log-probabilities l_1..l_n of the small model's reply the score is a quantile (0: the weakest token), their mean or
their sum; below a threshold the large model answers instead. A sum dislikes long replies whatever they say, a mean lets many
easy tokens hide a doubtful one: that is what quantiles are for.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.types import Array

Score = Annotated[
    str, Setting("what of the tokens' log-probabilities is looked at", choices=("quantile", "mean", "sum"))
]
Quantile = Annotated[float, Setting("which quantile; 0: the least likely token", low=0, high=1)]
SureFrom = Annotated[float, Setting("log-probability below which run.teacher is asked", "nats", high=0)]
Greedy = Annotated[bool, Setting("both models say their likeliest tokens")]


def cascade(
    score: Score = "quantile", quantile: Quantile = 0.1, sure_from: SureFrom = -0.7, greedy: Greedy = True
) -> Answering:
    """The policy's reply, or run.teacher's where the policy's score is below the threshold."""

    async def method(session: Session) -> Draft:
        small = session.offer(await session.draft("sample", 0, greedy=greedy))
        sure = confidence(np.concatenate([s.logp for s in small.line.samples]), score, quantile)
        session.mark(small.node, score=sure)
        if sure >= sure_from:
            return small
        return await session.draft("large", model="teacher", greedy=greedy)

    return answering(method, reads=["teacher"])


def confidence(logp: Array, score: str, quantile: float) -> float:
    """Chow-Quantile, Chow-Average or Chow-Sum of f32[n] log-probabilities."""
    if score == "quantile":
        return float(np.quantile(logp, quantile))
    return float(logp.mean() if score == "mean" else logp.sum())


def _asked(logp: float, **settings: object) -> list[float]:
    found = answered(RECIPE, Reply("5", logp), teacher=["7"], settings=settings)
    return [float(found.text), len(found.asked)]


RECIPE: Recipe = Recipe(
    name="cascade",
    paper=Paper("Language Model Cascades: Token-level Uncertainty and Beyond", "2404.10136", 2024),
    idea="A small model answers first, and a large one is asked only where the small one was unsure. How sure it was is read off its "
    "least likely tokens, since a mean over all of them hides the one that matters. Both are paid by their own sizes.",
    equation="defer iff quantile_a(l_1..l_n) < t, l_i = log pi_small(y_i | x, y_<i)",
    confidence="memory",
    stages={"rollout": stage(cascade)},
    default_base=RFT,
    needs=("text", "teacher"),
    defaults={"group_size": 1},
    departures=(
        "a threshold that is set; the paper's learned rule (a network on many quantiles and on embeddings) is not built",
        "GUESS: the tenth part of the tokens that are least likely, at a threshold of -0.7 (probability 1/2)",
    ),
    claim="Of equally many deferred questions, quantiles choose better ones than the sum.",
    examples=(
        ByHand(
            "log-probabilities -1, -3, -2, -4: the weakest, the median, the mean, the sum",
            lambda: [
                confidence(np.array([-1.0, -3.0, -2.0, -4.0]), *how)
                for how in (("quantile", 0.0), ("quantile", 0.5), ("mean", 0.0), ("sum", 0.0))
            ],
            [-4, -2.5, -2.5, -10],
        ),
        ByHand(
            "sure: the small model; unsure: the large one; two tokens at -0.5 sum to -1",
            lambda: [_asked(-0.1), _asked(-2.0), _asked(-0.5), _asked(-0.5, score="sum")],
            [[5, 1], [7, 2], [5, 1], [7, 2]],
        ),
    ),
)
