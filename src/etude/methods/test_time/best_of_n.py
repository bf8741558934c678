"""Best of N (Cobbe et al., arXiv 2110.14168), and votes weighted by the same scores (Li et al., arXiv 2206.02336).

Several answers are drawn; the one with the highest score is given, or the answer with the highest sum of scores. The score is
the model's own log-probability, its self-certainty, a judge's probability of Yes, or the checker's verdict: with the last
the method is an oracle, an upper bound that nobody has at test time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.test_time.majority import Samples
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import Answering, Draft, Session
from etude.search.vote import best, plurality, weighted
from etude.settings import stage


def best_of_n(n: Samples = 16, by: By = "logp", judge: WhoJudges = "policy") -> Answering:
    """argmax_i s(y_i) over n samples with an answer."""

    async def method(session: Session) -> Draft:
        drafts = await session.drafts(n, "sample")
        session.offer(drafts[0])
        return best(drafts, await _scored(session, drafts, by, judge))

    return answering_by(method, by, judge)


def weighted_vote(n: Samples = 16, by: By = "judge", judge: WhoJudges = "policy") -> Answering:
    """argmax_a sum_{i: a_i = a} w(y_i); w is exp of the mean log-probability, or the score itself."""

    async def method(session: Session) -> Draft:
        drafts = await session.drafts(n, "sample")
        session.offer(plurality(drafts))
        scores = await _scored(session, drafts, by, judge)
        return weighted(drafts, np.exp(scores).tolist() if by == "logp" else scores)

    return answering_by(method, by, judge)


async def _scored(session: Session, drafts: list[Draft], by: str, judge: str) -> list[float]:
    scores = await scorer(by, judge)(session, drafts)
    for draft, score in zip(drafts, scores, strict=True):
        session.mark(draft.node, score=score)
    return scores


THREE = (
    Reply("5", logp=-2.0, certainty=1.0),
    Reply("7", logp=-1.0, certainty=2.0),
    Reply("9", logp=-3.0, certainty=4.0),
)


def _given(recipe: Recipe, by: str, *replies: Reply, **more: Any) -> float:
    return float(answered(recipe, *replies, settings={"n": len(replies), "by": by}, **more).text)


BEST: Recipe = Recipe(
    name="best_of_n",
    paper=Paper("Training Verifiers to Solve Math Word Problems", "2110.14168", 2021),
    idea="Draws several answers and gives the one that a score likes best. The score may be the model's own probability, its "
    "certainty, or a judge's. With the checker itself as the score it is an oracle, and shows what a perfect choice would give.",
    equation="y = argmax_i s(y_i), i = 1..n",
    stages={"rollout": stage(best_of_n)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "the judge says Yes or No with the weights of a language model; the paper trains a verifier",
        "mean log-probability a token, where a sum would like short answers",
    ),
    claim="By the checker it gives pass@n; by log-probability less than a vote of as many.",
    examples=(
        ByHand(
            "by log-probability, certainty, checker, and a judge that finds Yes likelier by 1, 1/2 and 2",
            lambda: [
                _given(BEST, "logp", *THREE),
                _given(BEST, "certainty", *THREE),
                _given(BEST, "verifier", *THREE),
                _given(BEST, "judge", *THREE, odds=(1.0, 0.5, 2.0)),
            ],
            [7, 9, 7, 9],
        ),
        ByHand(
            "the judge reads three prompts and Yes and No after each",
            lambda: answered(BEST, *THREE, settings={"n": 3, "by": "judge"}, odds=(1, 1, 1)).spent["models"][
                "policy"
            ]["scored"],
            3
            * len(
                "<user>3+4?\n\nProposed answer:\n5\n\nIs this right so far? Reply Yes or No.<assistant>YesNo"
            ),
        ),
        Reduction(
            "one sample: greedy's sampling counterpart, majority of one",
            "majority",
            {"rollout.n": 1},
            {"rollout.n": 1},
        ),
    ),
)

WEIGHTED: Recipe = Recipe(
    name="weighted_vote",
    paper=Paper("Making Large Language Models Better Reasoners with Step-Aware Verifier", "2206.02336", 2023),
    idea="A vote in which an answer that looks good counts for more. It keeps what is right in a vote, that independent errors "
    "scatter, and what is right in a score, that some answers look wrong. With equal scores it is a plain vote.",
    equation="argmax_a sum_{i: a_i = a} w(y_i)",
    stages={"rollout": stage(weighted_vote)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "the verifier is a judge that says Yes or No, or the model's own numbers; the paper trains one",
    ),
    claim="No less accurate than a plain vote at equal n, more where the judge is better than chance.",
    examples=(
        ByHand(
            "5 twice at weight 1/3, 7 once at 3/4",
            lambda: _given(WEIGHTED, "judge", Reply("5"), Reply("7"), Reply("5"), odds=(0.5, 3.0, 0.5)),
            7,
        ),
        ByHand(
            "5 twice at weight 1/2, 7 once at 3/4",
            lambda: _given(WEIGHTED, "judge", Reply("5"), Reply("7"), Reply("5"), odds=(1.0, 3.0, 1.0)),
            5,
        ),
        Reduction(
            "by agreement with itself alone: majority of one",
            "majority",
            {"rollout.n": 1, "rollout.by": "agreement"},
            {"rollout.n": 1},
        ),
    ),
)

RECIPES = [BEST, WEIGHTED]
