"""Beam search over steps (Xie et al., arXiv 2305.00633): several beginnings of an answer are gone on from side by side, and
after every step only the best stay."""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.search import tree
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import Answering, Draft, Session
from etude.search.tree import Branch, Depth, StepTokens, Tree, Until
from etude.settings import Setting, stage

Width = Annotated[int, Setting("beginnings that are kept after each step", low=1, high=1024)]


def beam(
    width: Width = 4,
    branch: Branch = 4,
    by: By = "logp",
    judge: WhoJudges = "policy",
    until: Until = "\n",
    step_tokens: StepTokens = 64,
    depth: Depth = 16,
) -> Answering:
    """Of all steps sampled from the kept beginnings, the `width` best by score."""

    async def method(session: Session) -> Draft:
        return await tree.beam(Tree(session, scorer(by, judge), until, step_tokens, depth), width, branch)

    return answering_by(method, by, judge)


# Level 1: "a\n" (-1) and "b\n" (-2), of which width 1 keeps a. Level 2: from a the answers 5 (-3) and 7 (-1).
LEVELS = (Reply("a\n", -1.0), Reply("b\n", -2.0), Reply("5", -3.0), Reply("7", -1.0))

RECIPE: Recipe = Recipe(
    name="beam",
    paper=Paper("Self-Evaluation Guided Beam Search for Reasoning", "2305.00633", 2023),
    idea="Writes an answer step by step and keeps several beginnings at once. From each of them several next steps are drawn, "
    "and of all that come of it only the best-scored stay. A step ends with its line.",
    equation="B_{k+1} = top_width { s(y) : y in B_k x (branch steps ~ pi) }",
    stages={"rollout": stage(beam)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "the kept are the best by score; the paper draws them, and adds the log-probability to the judge's",
        "the score is the mean log-probability a token unless `by` says otherwise",
        "steps that say the same are one",
    ),
    claim="At equal tokens no better than a vote with the model's own scores, better with a judge above chance.",
    examples=(
        ByHand(
            "width 1, two steps each: the better beginning, then the better end",
            lambda: [
                float(
                    (found := answered(RECIPE, *LEVELS, settings={"width": 1, "branch": 2})).text.split()[-1]
                ),
                len(found.asked),
                found.asked[2].endswith("<assistant>a\n"),
                found.asked[3].endswith("<assistant>a\n"),
            ],
            [7, 4, 1, 1],
        ),
        ByHand(
            "a step that is whole is an answer: width 2 keeps it beside an open one",
            lambda: float(
                answered(
                    RECIPE,
                    Reply("7", -1.0),
                    Reply("b\n", -2.0),
                    Reply("5", -4.0),
                    Reply("5", -4.0),
                    settings={"width": 2, "branch": 2},
                ).text
            ),
            7,
        ),
    ),
)
