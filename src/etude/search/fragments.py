"""A tree over fragments of replies that were sampled to their end and cut at separators, as calls are made of: `name(a=1, b=2)`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from etude.text.overlap import overlap
from etude.types import Array

SEPARATOR = re.compile(r"\. |, |=|\(")


@dataclass(eq=False)
class Node:
    """A fragment of a reply: `prior` exp of its mean log-probability a token; `value` a sum that begins with a guess."""

    tokens: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    text: str = ""
    parent: Node | None = None
    prior: float = 1.0
    ended: bool = False
    value: float = 0.0
    visits: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def path(self) -> list[Node]:
        """From below the root to here."""
        return [*self.parent.path, self] if self.parent else []

    def back_up(self, reward: float) -> None:
        self.visits, self.value = self.visits + 1, self.value + reward
        if self.parent is not None:
            self.parent.back_up(reward)


def best_child(node: Node, exploration: float) -> Node:
    """argmax value / (n + 1) + c p sqrt(log N / (n + 1)), N and n the visits of the node and the child."""
    log_n = math.log(max(1, node.visits))
    return max(
        node.children,
        key=lambda c: c.value / (c.visits + 1) + exploration * c.prior * math.sqrt(log_n / (c.visits + 1)),
    )


def guess(gold: str, text: str) -> float:
    """A first value: 0.1 where fragment and solution both end a list of calls or neither does, else -0.1; and their overlap - 1/2."""
    return (0.1 if (")]" in text) == (")]" in gold) else -0.1) + overlap(gold, text) - 0.5


def fragments(tokens: Array, decode: Callable[[Array], str]) -> list[Array]:
    """A reply cut after every second separator, behind the token with which it is complete."""
    found, begin = [], 0
    for end in range(1, len(tokens)):
        if len(SEPARATOR.findall(decode(tokens[begin:end]))) >= 2:  # pieces of a fragment
            found.append(tokens[begin:end])
            begin = end
    return [*found, tokens[begin:]]


def everything(node: Node) -> list[Node]:
    """The nodes of a tree, from the top."""
    return [node, *(n for child in node.children for n in everything(child))]
