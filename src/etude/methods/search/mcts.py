"""Monte-Carlo tree search over the steps of an answer (Hao et al., RAP, arXiv 2305.14992; selection by PUCT).

    a = argmax_a Q_a + c P_a sqrt(N) / (1 + N_a)

An action is a step. From the leaf that is reached `branch` steps are sampled, the best-rated one is gone on from to the end,
and the score of that answer is backed up as a mean. The answer with the best score of all is given.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.search import tree
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import SEARCH, Answering, Draft, Session
from etude.search.tree import Branch, Depth, Node, StepTokens, Tree, Until, puct
from etude.settings import Setting, stage

Simulations = Annotated[int, Setting("answers that are played out", low=1, high=100_000)]
Exploration = Annotated[float, Setting("c, how much what was tried less counts", low=0)]
Priors = Annotated[str, Setting("P of the steps from one node", choices=("policy", "equal"))]


def mcts(
    simulations: Simulations = 8,
    branch: Branch = 3,
    exploration: Exploration = 1.0,
    priors: Priors = "policy",
    by: By = "judge",
    judge: WhoJudges = "policy",
    until: Until = "\n",
    step_tokens: StepTokens = 64,
    depth: Depth = 16,
) -> Answering:
    """`tree.mcts` with the scores of answers as values."""

    async def method(session: Session) -> Draft:
        made = Tree(session, scorer(by, judge), until, step_tokens, depth)
        return await tree.mcts(made, simulations, branch, exploration, priors)

    return answering_by(method, by, judge)


def _rated() -> list[float]:
    """Q + c P sqrt(N) / (1 + n) of three children: priors 1/2, 1/4, 1/4; values 1/2, 1, none; visits 2, 1, 0; N = 4, c = 2."""
    root = Node(None, visits=4)
    for prior, visits, total in ((0.5, 2, 1.0), (0.25, 1, 1.0), (0.25, 0, 0.0)):
        root.children.append(Node(None, root, prior=prior, visits=visits, total=total))
    return np.asarray(puct(root, 2.0)).tolist()


def _searched() -> list[float]:
    """Two simulations of two steps each. The first: a (1/2) and b (2/3); b to the end, 5 at 1/4. The second: a was not tried,
    0 + (1/2) sqrt(1) against 1/4 + (1/2) / 2, equal, the first: a; its steps 7 (3/4) and 77 (1/2) are answers."""
    found = answered(
        RECIPE,
        *(Reply(t) for t in ("a\n", "b\n", "5", "7", "77")),
        settings={"simulations": 2, "branch": 2, "priors": "equal"},
        odds=(1, 2, 1 / 3, 3, 1),
    )
    nodes = found.episode.notes[SEARCH]["nodes"]
    return [
        float(found.text.split()[-1]),
        len(found.asked),
        nodes[0]["visits"],
        nodes[0]["value"],
        nodes[1]["value"],
    ]


RECIPE: Recipe = Recipe(
    name="mcts",
    paper=Paper("Reasoning with Language Model is Planning with World Model", "2305.14992", 2023),
    idea="Grows a tree of steps where it pays. A step is chosen by what came of it so far and by how seldom it was tried; from "
    "there an answer is played out, scored, and its score is told to every step on the way. The best answer of all is given.",
    equation="a = argmax_a Q_a + c P_a sqrt(N) / (1 + N_a);  Q = mean of the scores below",
    stages={"rollout": stage(mcts)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "PUCT with priors, as in AlphaZero, in place of UCT; `priors=equal` without them",
        "the policy is its own world: a state is what was written; the reward is the score of the whole answer",
    ),
    claim="With a judge above chance it beats best of n at equal tokens where early steps decide.",
    examples=(
        ByHand("PUCT: 1/2 + 2 x 1/2 x 2 / 3, 1 + 1/2, 0 + 1", _rated, [0.5 + 2 / 3, 1.5, 1.0]),
        ByHand(
            "7 of five replies; step a visited once at 3/4, step b once at 1/4",
            _searched,
            [7, 5, 1, 0.75, 0.25],
        ),
    ),
)
