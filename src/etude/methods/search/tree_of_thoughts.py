"""Tree of thoughts (Yao et al., arXiv 2305.10601): steps are proposed, the model itself says how promising each beginning is,
and the tree is searched breadth first or depth first.

Breadth first keeps the `width` most promising beginnings of every level. Depth first enters the most promising child, turns
back where a value falls below a threshold, and stops at the first answer above it.
"""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.search.beam import Width
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.search import tree
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import Answering, Draft, Session
from etude.search.tree import Branch, Depth, StepTokens, Tree, Until
from etude.settings import Setting, stage

Prune = Annotated[float, Setting("beginnings below this score are not gone on from")]
Most = Annotated[int, Setting("nodes of one tree at most", low=1)]


def breadth_first(
    width: Width = 4,
    branch: Branch = 4,
    by: By = "judge",
    judge: WhoJudges = "policy",
    until: Until = "\n",
    step_tokens: StepTokens = 64,
    depth: Depth = 16,
) -> Answering:
    """`tree.beam` by the judge's value."""

    async def method(session: Session) -> Draft:
        return await tree.beam(Tree(session, scorer(by, judge), until, step_tokens, depth), width, branch)

    return answering_by(method, by, judge)


def depth_first(
    branch: Branch = 3,
    prune: Prune = 0.5,
    most: Most = 64,
    by: By = "judge",
    judge: WhoJudges = "policy",
    until: Until = "\n",
    step_tokens: StepTokens = 64,
    depth: Depth = 16,
) -> Answering:
    """`tree.depth_first` by the judge's value."""

    async def method(session: Session) -> Draft:
        made = Tree(session, scorer(by, judge), until, step_tokens, depth)
        return await tree.depth_first(made, branch, prune, most)

    return answering_by(method, by, judge)


PAPER = Paper("Tree of Thoughts: Deliberate Problem Solving with Large Language Models", "2305.10601", 2023)
DEPARTURES = (
    "thoughts are sampled steps, ended by a line; the paper also proposes several in one reply",
    "the value is the probability of Yes over Yes and No; the paper asks for sure, likely or impossible, several times",
)
STEPS = (Reply("a\n"), Reply("b\n"))

BREADTH: Recipe = Recipe(
    name="tot_bfs",
    paper=PAPER,
    idea="Thinks in steps, and asks itself of every beginning how promising it is. Level by level the most promising stay. So a "
    "wrong turn can be left before the answer is written out.",
    equation="B_{k+1} = top_width { p(Yes | x, y) : y in B_k x (branch steps ~ pi) }",
    stages={"rollout": stage(breadth_first)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=DEPARTURES,
    claim="With a judge above chance it beats a vote at equal tokens where early steps decide.",
    examples=(
        ByHand(
            "the judge prefers b, then 7",
            lambda: [
                float(
                    (
                        found := answered(
                            BREADTH, *STEPS, "5", "7", settings={"width": 1, "branch": 2}, odds=(1, 2, 1, 3)
                        )
                    ).text.split()[-1]
                ),
                found.asked[2].endswith("<assistant>b\n"),
            ],
            [7, 1],
        ),
        Reduction("by log-probability: beam", "beam", {"rollout.by": "logp"}),
    ),
)

DEPTH_FIRST: Recipe = Recipe(
    name="tot_dfs",
    paper=PAPER,
    idea="Thinks in steps, follows the most promising one, and turns back where the value of a beginning falls too low. It stops "
    "at the first answer that it finds good. Easy problems are cheap for it, hard ones dear.",
    equation="enter argmax_c p(Yes | x, y_c) while it is >= prune, else turn back",
    stages={"rollout": stage(depth_first)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        *DEPARTURES,
        "guess: a threshold of 1/2; where no answer reaches it, the best of those that ended",
    ),
    claim="Spends fewer tokens than breadth first at equal accuracy where the judge is good.",
    examples=(
        ByHand(
            "b (2/3) before a (1/2); below b 5 is below 1/2 and turns back; below a 7 is taken",
            lambda: [
                float(
                    (
                        found := answered(
                            DEPTH_FIRST,
                            *STEPS,
                            "5",
                            "55",
                            "7",
                            "77",
                            settings={"branch": 2},
                            odds=(1, 2, 0.5, 0.5, 3, 1),
                        )
                    ).text.split()[-1]
                ),
                found.asked[2].endswith("<assistant>b\n"),
                found.asked[4].endswith("<assistant>a\n"),
            ],
            [7, 1, 1],
        ),
    ),
)

RECIPES = [BREADTH, DEPTH_FIRST]
