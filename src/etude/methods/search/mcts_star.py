"""MCTS* (Zhang et al., ReST-MCTS*, arXiv 2406.03816): tree search over the steps of an answer by the value of a beginning, with a look
ahead, which stops where a value is high enough.

    a = argmax_a V_a + c sqrt(2 log N / N_a);   V <- (1 - alpha) V + alpha max V ahead;   V = sum_a N_a V_a / sum_a N_a

What guides it should say how far a beginning has come on the way to a right answer: a reward model of beginnings (by=model:DIRECTORY,
see `sorm`), a judge, or the value model that `rest_mcts` trains along with the policy. After the released code (THUDM/ReST-MCTS,
`MCTS/mcts.py`)."""

from __future__ import annotations

import math
from typing import Annotated, Any

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.search.ledger import Exhausted
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import SEARCH, Answering, Draft, Session
from etude.search.tree import Branch, Depth, Node, StepTokens, Tree, Until, highest
from etude.settings import Setting, stage

PAPER = Paper("ReST-MCTS*: LLM Self-Training via Process Reward Guided Tree Search", "2406.03816", 2024)

AHEAD = 1 << 12  # number of the first draw that looks ahead of a node: beyond those of its children

Rounds = Annotated[int, Setting("rounds of the search", low=1, high=100_000)]
Exploration = Annotated[float, Setting("c, how much what was tried less counts", low=0)]
Mix = Annotated[float, Setting("alpha: share of what is seen ahead in a value", low=0, high=1)]
Look = Annotated[int, Setting("m: steps that are looked ahead", low=0, high=64)]
Gate = Annotated[float, Setting("value of an ended answer at which the search stops")]


def promising(node: Node, exploration: float) -> Node:
    """argmax_a V_a + c sqrt(2 log N / N_a) of the children; V_a + 1 where a was not visited. Of equals the first."""
    return max(
        node.children,
        key=lambda a: (
            a.score + (exploration * math.sqrt(2 * math.log(node.visits) / a.visits) if a.visits else 1.0)
        ),
    )


async def ahead(tree: Tree, node: Node, steps: int, branch: int) -> float:
    """The highest value on a greedy way of up to `steps` steps from a node, of `branch` tries a step; the node's own, where it ended."""
    if node.ended:
        return node.score
    best, at = 0.0, node
    for _ in range(steps):
        # Apart from the tree, which it does not grow.
        probe = Node(at.draft, None, at.depth, tried=AHEAD)
        found = await tree.expand(probe, branch)
        if not found:
            break
        at = max(found, key=lambda n: n.score)
        best = max(best, at.score)
        if at.ended:
            break
    return best


def backed_up(node: Node) -> None:
    """N + 1, and V = sum_a N_a V_a / sum_a N_a, from a node up."""
    at: Node | None = node
    while at is not None:
        at.visits += 1
        total = sum(a.visits for a in at.children)
        if total:
            at.score = sum(a.visits * a.score for a in at.children) / total
        at = at.parent


async def searched(
    tree: Tree, simulations: int, branch: int, exploration: float, mix: float, steps: int, gate: float
) -> Draft:
    """Select, stop where V >= `gate`, expand, look ahead from the most promising child, V <- (1 - a) V + a V_ahead, back up. Where no
    value reaches the gate, the ended answer of the highest value, or the best beginning, played out."""
    for _ in range(simulations):
        node = tree.root
        while node.children:
            node = promising(node, exploration)
        if node.draft is not None and node.ended and node.score >= gate:
            return node.draft
        try:
            if not node.ended:
                await tree.expand(node, branch)
            if node.children:
                child = promising(node, exploration)
                child.score = (1 - mix) * child.score + mix * await ahead(tree, child, steps, branch)
                child.visits += 1
        except Exhausted:
            backed_up(node)
            break
        backed_up(node)
    for found in _below(tree.root):
        if found.draft is not None:
            tree.session.mark(found.draft.node, visits=found.visits, value=found.score)
    if not any(n.ended for n in _below(tree.root)):
        await tree.end(max(_below(tree.root), key=lambda n: n.score, default=tree.root), 0)
    return highest(tree.leaves)


def _below(node: Node) -> list[Node]:
    return [found for child in node.children for found in (child, *_below(child))]


def mcts_star(
    simulations: Rounds = 8,
    branch: Branch = 3,
    exploration: Exploration = 0.7,
    mix: Mix = 0.5,
    look: Look = 3,
    gate: Gate = 0.9,
    by: By = "judge",
    judge: WhoJudges = "policy",
    until: Until = "\n",
    step_tokens: StepTokens = 64,
    depth: Depth = 16,
) -> Answering:
    """`searched` by scores of that name."""

    async def method(session: Session) -> Draft:
        made = Tree(session, scorer(by, judge), until, step_tokens, depth)
        return await searched(made, simulations, branch, exploration, mix, look, gate)

    return answering_by(method, by, judge)


def _selected() -> list[float]:
    """Which of three children is entered, with V 1/2, 0.9, 0 and visits 4, 8, 0 of 12, at c = 1; and at c = 0 of the first two."""
    root = Node(None, visits=12)
    for score, visits in ((0.5, 4), (0.9, 8), (0.0, 0)):
        root.children.append(Node(None, root, score=score, visits=visits))
    first = root.children.index(promising(root, 1.0))
    del root.children[2]
    return [first, root.children.index(promising(root, 0.0))]


def _backed_up() -> list[float]:
    """V and N of a node with children of V 1 and 0 visited 1 and 3 times, and of the root above it."""
    root = Node(None)
    node = Node(None, root)
    root.children.append(node)
    node.children += [Node(None, node, score=1.0, visits=1), Node(None, node, score=0.0, visits=3)]
    backed_up(node)
    return [node.score, node.visits, root.score, root.visits]


def _found(*said: str, odds: tuple[float, ...], **settings: Any) -> list[float]:
    """Two steps at a time: the answer, and how many replies it took."""
    given = {"branch": 2, "look": 0, "mix": 0.0, "simulations": 3, **settings}
    found = answered(RECIPE, *said, settings=given, odds=odds)
    return [float(found.text.split()[-1]), len(found.asked), len(found.episode.notes[SEARCH]["nodes"])]


def _values(*said: str, odds: tuple[float, ...], **settings: Any) -> list[float]:
    """Values and visits of the first two steps after one round."""
    given = {"branch": 2, "simulations": 1, **settings}
    nodes = answered(RECIPE, *said, settings=given, odds=odds).episode.notes[SEARCH]["nodes"]
    return [float(n[name]) for n in nodes[:2] for name in ("value", "visits")]


RECIPE: Recipe = Recipe(
    name="mcts_star",
    paper=PAPER,
    idea="Grows a tree of steps where beginnings look promising. Before a step is judged the search looks a few steps ahead from it. "
    "It stops at an answer that looks good enough.",
    equation="a = argmax V_a + c sqrt(2 log N / N_a);  V <- (1 - alpha) V + alpha max V_ahead;  V = sum N_a V_a / sum N_a;  stop at V >= gate",
    stages={"rollout": stage(mcts_star)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "the search stops at an ended answer of a value beyond the gate; the release at any such beginning, which it takes for solved",
        "whether an answer has ended its last token says; the release asks the model. No reflections",
        "of equally promising children the first is entered, where the release draws",
        "8 rounds of 3 steps; a judge's probability of Yes is the value unless `by` says otherwise",
    ),
    claim="Guided by values that were learnt for it, it finds more than best of n at equal tokens.",
    examples=(
        ByHand(
            "1/2 + sqrt(2 log 12 / 4) against 0.9 + sqrt(2 log 12 / 8) and 0 + 1; without the bonus the second",
            _selected,
            [1, 1],
        ),
        ByHand("V = 1/4, twice", _backed_up, [0.25, 1, 0.25, 1]),
        ByHand(
            "a (1/2) and b (3/4), visited once; so a, which was not; from it 7 (0.9) and 5 (1/4): 7 after four replies",
            lambda: _found("a\n", "b\n", "7", "5", odds=(1, 3, 9, 1 / 3)),
            [7, 4, 4],
        ),
        ByHand(
            "7 (0.95) at once, then 8 (0.9) and c below a; the third round comes to 7, beyond the gate; with none it goes on below c",
            lambda: [
                *_found("a\n", "7", "8", "c\n", odds=(1, 19, 9, 1), simulations=4)[:2],
                *_found("a\n", "7", "8", "c\n", "1", "2", odds=(1, 19, 9, 1, 1, 1), simulations=4, gate=2.0)[
                    :2
                ],
            ],
            [7, 4, 7, 6],
        ),
        ByHand(
            "one step ahead of b (3/4) lie 8 (1/4) and 9 (0.9): alpha = 1/2 makes its value 0.825; a was not visited; 7 is where b ends",
            lambda: _values("a\n", "b\n", "8", "9", "7", odds=(1, 3, 1 / 3, 9, 1), look=1, mix=0.5),
            [0.5, 0, 0.825, 1],
        ),
    ),
)
