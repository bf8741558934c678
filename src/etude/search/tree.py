"""A tree over the steps of an answer: a node is a beginning of an answer, its children are ways to go on by one step. Beam
search, breadth- and depth-first tree of thoughts and Monte-Carlo tree search differ in which node they go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from typing import Annotated

import numpy as np

from etude.search.ledger import Exhausted
from etude.search.score import Scorer
from etude.search.session import Draft, Session
from etude.settings import Setting
from etude.types import Array

Until = Annotated[str, Setting("text that ends a step; empty: a step is a whole answer")]
StepTokens = Annotated[int, Setting("longest step", "tokens", low=1)]
Depth = Annotated[int, Setting("steps of an answer at most; the last one goes on to the end", low=1)]
Branch = Annotated[int, Setting("steps that are tried from a node", low=1, high=1024)]


@dataclass(eq=False)
class Node:
    """A beginning of an answer. `q` is the mean of what was backed up through it."""

    draft: Draft | None  # None: nothing was said yet
    parent: Node | None = None
    depth: int = 0
    prior: float = 1.0
    score: float = 0.0
    visits: int = 0
    total: float = 0.0
    children: list[Node] = field(default_factory=list)
    tried: int = 0  # steps sampled from here
    ended: bool = False

    @property
    def q(self) -> float:
        return self.total / self.visits if self.visits else 0.0

    @property
    def path(self) -> list[Node]:
        """From below the root to here."""
        return [*self.parent.path, self] if self.parent else []


@dataclass
class Tree:
    """The tree of one session. `longest` tokens a step; after `depth` steps an answer is over."""

    session: Session
    score: Scorer
    until: str = "\n"
    longest: int = 64
    depth: int = 16
    root: Node = field(default_factory=lambda: Node(None))
    offered: float = -inf  # the score of what the session has been offered
    ends: list[Node] = field(default_factory=list)  # answers that were played out from a node in one go

    @property
    def leaves(self) -> list[Node]:
        """The ended answers, in the order of the tree, then those that were played out."""
        found: list[Node] = []
        waiting = [self.root]
        while waiting:
            node = waiting.pop(0)
            found += [node] if node.ended else []
            waiting += node.children
        return [*found, *self.ends]

    async def expand(self, node: Node, branch: int) -> list[Node]:
        """Up to `branch` new children: steps sampled from here, those that say the same kept once, each scored."""
        begin = node.tried
        node.tried += branch
        known = {_said(child.draft) for child in node.children if child.draft}
        drafts = await self.session.gather(self.step(node, begin + i) for i in range(branch))
        fresh = []
        for draft in drafts:
            if (words := _said(draft)) not in known:
                known.add(words)
                fresh.append(draft)
        return await self.add(node, fresh)

    async def add(self, node: Node, drafts: Sequence[Draft]) -> list[Node]:
        """New children of a node: each of the steps that were sampled from it, scored."""
        fresh = []
        for draft in drafts:
            child = Node(draft, node, node.depth + 1)
            last = draft.line.stop != "cut" and not (draft.line.stop == "length" and child.depth < self.depth)
            child.ended = last or child.depth >= self.depth or draft.line.full
            fresh.append(child)
        for child, score in zip(fresh, await self.score(self.session, drafts), strict=True):
            child.score = score
            assert child.draft is not None
            self.session.mark(child.draft.node, score=score)
            if child.ended:
                self._offer(child)
        node.children += fresh
        return fresh

    def _offer(self, node: Node) -> None:
        """An ended answer stands for the session's, should it end now, where none scored higher."""
        assert node.draft is not None
        if self.session.offered is None or node.score > self.offered:
            self.offered = node.score
            self.session.offer(node.draft)

    async def end(self, node: Node, number: int) -> Node:
        """An ended answer from `node` on: the rest of it in one reply, which no selection enters."""
        if node.ended or node.draft is None:
            return node
        line = node.draft.line.fork(-1 - number)
        line.stop = "cut"
        draft = await self.session.go_on(line, node.draft.node, tag="to the end")
        found = Node(draft, node, node.depth + 1, ended=True)
        (found.score,) = await self.score(self.session, [draft])
        self.session.mark(draft.node, score=found.score)
        self.ends.append(found)
        self._offer(found)
        return found

    async def step(self, node: Node, number: int) -> Draft:
        """Draw number `number` of a step from a node, which is not yet a child of it."""
        last = node.depth + 1 >= self.depth
        if node.draft is None:
            line, parent = self.session.line("step", number), None
        else:
            line, parent = node.draft.line.fork(number), node.draft.node
            line.stop = "cut"  # a step that was cut by its length goes on as well
        until = "" if last else self.until
        return await self.session.go_on(
            line,
            parent,
            tag=f"step {node.depth + 1}",
            until=until,
            max_tokens=None if not until else self.longest,
        )

    def back_up(self, node: Node, value: float) -> None:
        """Adds a value to a node and to all above it."""
        at: Node | None = node
        while at is not None:
            at.visits += 1
            at.total += value
            if at.draft is not None:
                self.session.mark(at.draft.node, visits=at.visits, value=at.q)
            at = at.parent


def _said(draft: Draft) -> bytes:
    """The tokens of the last step."""
    return bytes(draft.line.samples[-1].tokens.tobytes()) if draft.line.samples else b""


def highest(nodes: Sequence[Node]) -> Draft:
    """The draft of the highest score, of those in which an answer was found if there are any. Raises Exhausted where
    there is no node."""
    answered = [n for n in nodes if n.draft and n.draft.answer is not None] or list(nodes)
    if not answered:
        raise Exhausted
    found = max(answered, key=lambda n: n.score).draft
    assert found is not None
    return found


async def beam(tree: Tree, width: int, branch: int) -> Draft:
    """Level by level: every open node is gone on from, and of what the level holds the `width` best stay. Ended answers stay
    in the beam as long as nothing better pushes them out."""
    level = [tree.root]
    while any(not node.ended for node in level):
        grown = [child for n in level if not n.ended for child in await _grown(tree, n, branch)]
        held = [n for n in level if n.ended]
        if not grown:
            break
        level = sorted([*held, *grown], key=lambda n: -n.score)[:width]
    return highest([n for n in level if n.ended] or tree.leaves)


async def _grown(tree: Tree, node: Node, branch: int) -> list[Node]:
    try:
        return await tree.expand(node, branch)
    except Exhausted:
        return []


async def depth_first(tree: Tree, branch: int, prune: float, most: int) -> Draft:
    """Into the best child first; children whose score is below `prune` are not entered. The first ended answer at or above
    `prune` is taken; after `most` nodes, or where nothing is left, the best of all that ended. Where none has, the best that was not
    entered is."""
    open_, seen = [tree.root], 0
    refused: list[Node] = []
    while seen < most:
        if not open_:
            if tree.leaves or not refused:
                break
            refused.sort(key=lambda n: n.score)
            open_.append(refused.pop())
        node = open_.pop()
        if node.ended:
            if node.score >= prune:
                assert node.draft is not None
                return node.draft
            continue
        children = await tree.expand(node, branch)
        seen += len(children)
        open_ += sorted((c for c in children if c.ended or c.score >= prune), key=lambda n: n.score)
        refused += [c for c in children if not (c.ended or c.score >= prune)]
    return highest(tree.leaves)


def puct(node: Node, exploration: float) -> Array:
    """Q_a + c P_a sqrt(N) / (1 + N_a) of a node's children, f64[K]; N the visits of the node (Silver et al. 2017, as in
    arXiv 1712.01815 with a constant c)."""
    priors = np.array([c.prior for c in node.children])
    q, n = (np.array([getattr(c, name) for c in node.children], float) for name in ("q", "visits"))
    return q + exploration * priors * sqrt(max(node.visits, 1)) / (1 + n)


def with_priors(children: Sequence[Node], of: str) -> None:
    """Sets the priors of siblings: "equal", or in proportion to the probability a token of each child's own step."""
    weights = np.ones(len(children))
    if of == "policy":
        steps = [c.draft.line.samples[-1].logp for c in children if c.draft and c.draft.line.samples]
        weights = np.exp([float(s.mean()) for s in steps])
    for child, p in zip(children, weights / weights.sum() if len(weights) else (), strict=True):
        child.prior = float(p)


async def mcts(
    tree: Tree, simulations: int, branch: int, exploration: float, priors: str = "policy"
) -> Draft:
    """Select by PUCT down to a leaf, expand it by `branch` steps, go on from its best-rated child to an end, back up that
    answer's score; again `simulations` times. The answer is the best of all that ended."""
    for number in range(simulations):
        node = tree.root
        while node.children and not node.ended:
            node = node.children[int(np.argmax(puct(node, exploration)))]
        try:
            if not node.ended:
                children = await tree.expand(node, branch)
                with_priors(node.children, priors)
                node = max(children, key=lambda c: c.score, default=node)
            ending = await tree.end(node, number)
        except Exhausted:
            break
        tree.back_up(node, ending.score)
    return highest(tree.leaves)
