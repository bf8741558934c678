"""How likely the gold answer is after each step of an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.types import Array, Episode, Signal, Span


def accuracy(episodes: Sequence[Episode], context: Any) -> list[Array]:
    """f[K] each: the mean probability of the gold answer's tokens, forced after each step."""
    encode = context.policy.tokenizer.encode
    forced = []
    for episode in episodes:
        gold = encode(episode.task.answer or episode.task.reference)
        lead = np.array(episode.notes.get("lead", []), np.int32)
        for cut in episode.notes.get("cuts", []):
            before = Span("user", np.concatenate([episode.tokens[:cut], lead]))
            on = np.append(np.zeros(len(before)), np.ones(len(gold))).astype(np.float32)
            forced.append(
                Signal(Episode(episode.task, (before, Span("assistant", gold))), 0 * on, {"probe": on})
            )
    rows = context.rows(forced, lambda out: out.logp)
    means = iter(float(np.exp(r[s.weights["probe"] != 0]).mean()) for r, s in zip(rows, forced, strict=True))
    return [np.array([next(means) for _ in e.notes.get("cuts", [])]) for e in episodes]
