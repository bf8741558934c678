"""AlphaLLM's search (eta-MCTS; Tian et al., arXiv 2404.12253): Monte-Carlo tree search over options, with a width that adapts and without
near-copies.

    a = argmax_a Q_a / N_a + c sqrt(ln N / N_a);   width(s) = max(old, min(floor(f max_i |Q_i / N_i - mean_j Q_j / N_j|), most))
    r(s) = w_v V(s) + w_o mean_n ORM(answers played out from s), or the answer's own where s ended;   Q sums r on the way up

An option is a step. A node gets more children where they turn out to differ in worth; a new child is drawn again while it reads almost like
one that is there. By itself it is trained on the right answers that it finds, as RFT is, round after round: the paper's loop of imagining,
searching and criticising. Numbers after the released code (YeTianJHU/AlphaLLM, `search/mcts.py`, `scripts/run_mcts.sh`)."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.search.ledger import Exhausted
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import SEARCH, Answering, Draft, Session
from etude.search.tree import Depth, Node, StepTokens, Tree, Until, highest
from etude.settings import Setting, stage

Weight = Annotated[float, Setting("weight of that part of a node's reward", low=0)]


def edit_distance(a: str, b: str) -> int:
    """How many characters must be put in, taken out or changed to make one of the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def importance(node: Node) -> float:
    """max_i |Qbar_i - mean_j Qbar_j| over a node's children: how much it matters which of them is taken."""
    q = np.array([c.q for c in node.children])
    return float(np.abs(q - q.mean()).max()) if len(q) else 0.0


def promising(node: Node, exploration: float) -> Node:
    """argmax_a Q_a / N_a + c sqrt(ln N / N_a); of equals the first."""
    return max(
        node.children, key=lambda a: a.q + exploration * math.sqrt(math.log(max(node.visits, 1)) / a.visits)
    )


async def fresh(tree: Tree, node: Node, distance: int, tries: int) -> Draft:
    """A step from here that reads unlike every sibling by at least `distance` characters; of `tries` steps that do not, the one that is
    farthest from its nearest sibling."""
    siblings = [_said(c.draft) for c in node.children if c.draft]
    best: tuple[float, Draft] | None = None
    for _ in range(tries):
        draft = await tree.step(node, node.tried)
        node.tried += 1
        nearest = min((edit_distance(_said(draft), s) for s in siblings), default=math.inf)
        if best is None or nearest > best[0]:
            best = nearest, draft
        if nearest >= distance:
            break
    assert best is not None
    return best[1]


def _said(draft: Draft) -> str:
    """The last step alone."""
    return draft.line.generator.renderer.decode(draft.line.samples[-1].tokens)


def alpha_llm(
    simulations: Annotated[
        int, Setting("searches: nodes that are added or met again", low=1, high=100_000)
    ] = 16,
    first_width: Annotated[int, Setting("children of the root", low=1, high=1024)] = 4,
    width: Annotated[int, Setting("children of any other node at first", low=1, high=1024)] = 2,
    widest: Annotated[int, Setting("children of a node at most, where their worth differs", low=1)] = 10,
    widening: Annotated[float, Setting("f: children for a difference of 1; 0: widths stay", low=0)] = 2.0,
    exploration: Annotated[float, Setting("c, how much what was tried less counts", low=0)] = 1.0,
    distance: Annotated[
        int, Setting("characters by which siblings differ at least; 0: any", "characters", low=0)
    ] = 20,
    tries: Annotated[int, Setting("R: steps that are drawn for one that differs", low=1, high=64)] = 5,
    ends: Annotated[int, Setting("answers that are played out from a new node", low=0, high=64)] = 1,
    value_weight: Weight = 1.0,
    answer_weight: Weight = 1.0,
    by: By = "judge",
    judge: WhoJudges = "policy",
    until: Until = "\n",
    step_tokens: StepTokens = 64,
    depth: Depth = 10,
) -> Answering:
    """The best-scored of the answers that the search has met."""

    async def method(session: Session) -> Draft:
        tree = Tree(session, scorer(by, judge), until, step_tokens, depth)
        widths: dict[int, int] = {}
        for number in range(simulations):
            try:
                await search(tree, widths, number)
            except Exhausted:
                break
        if not tree.leaves:
            await tree.end(tree.root if not tree.root.children else tree.root.children[0], 0)
        return highest(tree.leaves)

    async def search(tree: Tree, widths: dict[int, int], number: int) -> None:
        node = tree.root
        while not node.ended:
            base = width if node.parent else first_width
            wider = min(math.floor(widening * importance(node)), widest)
            widths[id(node)] = max(widths.get(id(node), base), wider)
            if len(node.children) < widths[id(node)]:
                (node,) = await tree.add(node, [await fresh(tree, node, distance, tries)])
                node.prior = await reward(tree, node, number)
                break
            node = promising(node, exploration)
        tree.back_up(node, node.prior)

    async def reward(tree: Tree, node: Node, number: int) -> float:
        """Of a new node; kept as its `prior`, which this search has no other use for, and added again where an ended node is met
        again."""
        if node.ended:
            return value_weight * node.score + answer_weight * node.score
        played = [await tree.end(node, number * max(ends, 1) + i) for i in range(ends)]
        outcome = float(np.mean([p.score for p in played])) if played else 0.0
        return value_weight * node.score + answer_weight * outcome

    return answering_by(method, by, judge)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _searched(*said: str, odds: tuple[float, ...], **settings: Any) -> list[float]:
    """The answer, how many replies it took, and visits and value of every node that was visited."""
    given = {"ends": 0, "distance": 0, "tries": 1, "first_width": 2, "width": 1, "widening": 0.0, **settings}
    found = answered(RECIPE, *said, settings=given, odds=odds)
    nodes = found.episode.notes[SEARCH]["nodes"]
    worth = [x for n in nodes if "visits" in n for x in (n["visits"], n["value"])]
    return [float(found.text.split()[-1]), len(found.asked), *worth]


def _wide() -> list[float]:
    """Of a node whose children are worth 1, 0 and 1/2: how much it matters, and which is entered at N = 6 and c = 1, all visited twice,
    and if the third was visited once."""
    root = Node(None, visits=6)
    for total in (2.0, 0.0, 1.0):
        root.children.append(Node(None, root, visits=2, total=total))
    first = root.children.index(promising(root, 1.0))
    root.children[2].visits, root.children[2].total = 1, 0.5
    return [importance(root), first, root.children.index(promising(root, 1.0))]


RECIPE: Recipe = Recipe(
    name="alpha_llm",
    paper=Paper(
        "Toward Self-Improvement of LLMs via Imagination, Searching, and Criticizing", "2404.12253", 2024
    ),
    idea="A tree of steps is grown. A node gets more children where it matters which one is taken, and no two that read alike. "
    "New nodes are judged by themselves and by answers that are played out from them.",
    equation="a = argmax Q_a / N_a + c sqrt(ln N / N_a);  width(s) = max(old, min(floor(f max_i |Qbar_i - mean Qbar|), most));  "
    "r(s) = w_v V(s) + w_o mean ORM(played out)",
    stages={"rollout": stage(alpha_llm)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 2},
    departures=(
        "one scorer judges beginnings and answers (by=...); the paper has a value model, an outcome model and a process model, the last at weight 0 in "
        "the release's script. `rest_mcts` and `sorm` train such models",
        "answers are played out by the policy itself, and may be given; the paper's by a smaller one, which serve the judging alone",
        "16 searches, a root of 4 and nodes of 2 children, where the release's script has 40, 40 and 3",
        "training imitates right answers (RFT) on the tasks as they are; the paper also has prompts written",
    ),
    claim="At equally many rollouts it finds more than a search of fixed width that keeps near-copies, and a round of imitation raises greedy accuracy.",
    examples=(
        ByHand(
            "put in, taken out, changed; nothing",
            lambda: [edit_distance(*p) for p in (("kitten", "sitting"), ("", "ab"), ("a", "a"))],
            [3, 2, 0],
        ),
        ByHand(
            "1 - 1/2; 1 + sqrt(ln 6 / 2); 1/2 + sqrt(ln 6) against 1 + sqrt(ln 6 / 2)",
            _wide,
            [0.5, 0, 0],
        ),
        ByHand(
            "a (1/2), and 7 (0.9), which ended and counts twice; 7 is met again, and given",
            lambda: _searched("a\n", "7", odds=(1, 9), simulations=3),
            [7, 2, 1, 0.5, 2, 1.8],
        ),
        ByHand(
            "an end played out from a: 5 (1/4), so a is worth 1/2 + 1/4",
            lambda: _searched("a\n", "5", odds=(1, 1 / 3), ends=1, simulations=1),
            [5, 2, 1, 0.75],
        ),
        ByHand(
            "a second child like the first is drawn again, and the one that differs most is kept: b b b, not a a a",
            lambda: [
                float(n["text"].count("b"))
                for n in answered(
                    RECIPE,
                    "a a a\n",
                    "a a b\n",
                    "b b b\n",
                    "7",
                    settings={"ends": 0, "simulations": 2, "first_width": 2, "distance": 20, "tries": 2},
                    odds=(1, 1, 1),
                ).episode.notes[SEARCH]["nodes"]
                if "value" in n
            ],
            [0, 3],
        ),
    ),
)
