"""Selective answering (Self-J, arXiv 2409.00935): of several answers the one that a judge rates highest is given, or none, where even
that one is rated too low.

    score(y) = sum_d d p(d | x, y) / sum_d p(d | x, y), d = 0..9;   y* = argmax_i score(y_i), given where score(y*) >= tau

The rating is read off the judge's probabilities of the ten digits, not sampled, so answers that would get the same digit still
differ. How a model becomes such a judge is `self_j`.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from etude.evaluate.abstention import CONFIDENCE
from etude.fixtures.inference import answered
from etude.methods.behaviour.r_tuning import Abstain
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.reward_model.self_j import PAPER, TOP, asked
from etude.methods.test_time.majority import Samples
from etude.recipe import ByHand, Recipe, Reduction
from etude.search.score import WhoJudges, probabilities
from etude.search.session import SEARCH, Answering, Draft, Session, answering
from etude.search.vote import best
from etude.settings import Setting, stage

Threshold = Annotated[float, Setting("tau: lowest rating at which an answer is given", low=0, high=TOP)]


def selective(
    n: Samples = 8,
    threshold: Threshold = 0.0,
    judge: WhoJudges = "policy",
    abstention: Abstain = "I don't know",
) -> Answering:
    """The answer of the highest rating of n, if it is rated `threshold` or higher; else words that abstain. The rating is its confidence."""

    async def method(session: Session) -> Draft | str:
        drafts = await session.drafts(n, "sample")
        session.offer(drafts[0])
        questions = [[asked(session.task, d.text)] for d in drafts]
        p = probabilities(session, questions, [str(d) for d in range(TOP + 1)], judge)
        ratings = (p @ np.arange(TOP + 1)).tolist()
        for draft, rating in zip(drafts, ratings, strict=True):
            session.mark(draft.node, score=rating)
        chosen = best(drafts, ratings)
        rating = ratings[drafts.index(chosen)]
        if rating >= threshold:
            chosen.line.notes[CONFIDENCE] = rating / TOP
            return chosen
        session.note(abstention, chosen.node, "declined")
        return abstention

    return answering(method, reads=["teacher"] if judge == "teacher" else [])


# Of each pair of digits (0 1, 2 3, ...) the first is likelier by a factor: all weight on 2, on 6, and on none.
TWO, SIX, EVEN = (1, 1e9, 1, 1, 1), (1, 1, 1, 1e9, 1), (1, 1, 1, 1, 1)


def _said(threshold: float, *odds: tuple[float, ...]) -> list[float]:
    """Of the answers 5, 7, 9: which is given (0: none), and the ratings."""
    settings = {"n": len(odds), "threshold": threshold}
    found = answered(RECIPE, *"579"[: len(odds)], settings=settings, odds=[o for one in odds for o in one])
    ratings = [node["score"] for node in found.episode.notes[SEARCH]["nodes"] if "score" in node]
    return [0.0 if found.text == "I don't know" else float(found.text), *ratings]


RECIPE: Recipe = Recipe(
    name="selective",
    paper=PAPER,
    idea="Draws several answers and asks a judge for a digit on each, which is read off as an expectation. The best is given. "
    "Where even the best is rated too low, the model says that it would rather not answer.",
    equation="score(y) = sum_d d p(d) / sum_d p(d);  argmax_i score(y_i) if it is >= tau, else nothing",
    stages={"rollout": stage(selective)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "tau = 0, at which all answers are given, is the default; one that is not given is wrong, or, with run.abstain, an outcome of its own",
        "eight samples where the paper draws 32; the judge is the policy or run.teacher, which `self_j` trains",
    ),
    claim="With a judge trained by self_j, answers above the threshold are right more often than those below, and the best of n beats one.",
    examples=(
        ByHand("rated 2, 6 and 4.5: the second", lambda: _said(0.0, TWO, SIX, EVEN), [7, 2, 6, 4.5]),
        ByHand(
            "rated 6 of 9: its confidence",
            lambda: answered(RECIPE, "7", settings={"n": 1}, odds=SIX).episode.notes[CONFIDENCE],
            6 / TOP,
        ),
        ByHand(
            "none reaches 7; one reaches 5.5",
            lambda: [_said(7.0, TWO, SIX)[0], _said(5.5, TWO, SIX)[0]],
            [0, 7],
        ),
        Reduction("one sample, any rating: majority of one", "majority", {"rollout.n": 1}, {"rollout.n": 1}),
    ),
)
