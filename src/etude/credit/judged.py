"""How often a model prefers one answer to another, read off its probabilities of the replies A and B and averaged over both orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from etude.stages import Context
from etude.tasks.check import Unjudged
from etude.types import Array, Episode, Group, Message, Signal, Span, Task

Ask = Callable[[Task, str, str], Message]
"""(task, answer A, answer B) -> the question which of them is better, to be answered by A or B."""


def shares_of(groups: Sequence[Group], context: Context, model: Any, ask: Ask) -> list[Array]:
    """f64[G, G] of each group: how often answer i is preferred to answer j, (P(A | i, j) + 1 - P(A | j, i)) / 2; 1/2 where the question is
    longer than the model can read."""
    renderer, limit = context.policy.renderer, getattr(model, "context", 1 << 30)
    found = [np.full((len(g.episodes), len(g.episodes)), 0.5) for g in groups]
    places, cases = [], list[Signal]()
    for number, group in enumerate(groups):
        texts = [e.text for e in group.episodes]
        for i, j in combinations(range(len(texts)), 2):
            both = [
                _said(renderer, ask(group.task, texts[a], texts[b]), word)
                for a, b in ((i, j), (j, i))
                for word in "AB"
            ]
            if max(len(s.advantage) for s in both) <= limit:
                places.append((number, i, j))
                cases += both
    if not cases:
        return found
    rows = context.rows(cases, lambda out: out.logp, policy=model)
    logp = [float((r * s.weights["policy"]).sum()) for r, s in zip(rows, cases, strict=True)]
    table = np.array(logp).reshape(-1, 2, 2)  # pair, order, word
    first = 1 / (1 + np.exp(table[:, :, 1] - table[:, :, 0]))  # P(A) in each order
    for (number, i, j), (there, back) in zip(places, first, strict=True):
        found[number][i, j] = (there + 1 - back) / 2
        found[number][j, i] = 1 - found[number][i, j]
    return found


def _said(renderer: Any, question: Message, word: str) -> Signal:
    """The judge's question with a reply, whose tokens are weighed."""
    prompt, words = renderer.prompt([question]), renderer.tokenizer.encode(word)
    spans = (Span("user", prompt), Span("assistant", np.asarray(words, np.int32)))
    row = np.concatenate([np.zeros(len(prompt)), np.ones(len(words))]).astype(np.float32)
    return Signal(Episode(Task((question,), Unjudged()), spans), 0 * row, {"policy": row})
