"""Which tokens are to be imitated. Imitation has no advantage: its weight row is "imitation"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import constant
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal


def imitate(episode: Episode, where: Array, weight: float = 1.0) -> Signal:
    """Cross-entropy with `weight` on the tokens `where` (bool[T]); nothing else."""
    return Signal(
        episode,
        np.zeros(len(where), np.float32),
        {"imitation": np.where(where, weight, 0).astype(np.float32)},
    )


def tagged(episode: Episode, tag: str) -> Array:
    """bool[T]: the tokens of spans with this tag."""
    return np.concatenate([np.full(len(s), s.tag == tag) for s in episode.spans])


def shown(groups: Sequence[Group], *blank: str) -> list[Signal]:
    """The demonstrations, to be imitated; with extras `blank`, which the loss reads on attempts only."""
    signals = [imitate(e, tagged(e, "demonstration")) for g in groups for e in g.demonstrations]
    return [replace(s, extras=dict.fromkeys(blank, np.zeros_like(s.advantage))) for s in signals]


def unattempted(groups: Sequence[Group]) -> list[Group]:
    """The groups in which nothing but a demonstration was asked for."""
    return [g for g in groups if not (g.episodes or g.failed)]


def demonstrations():
    """The tokens of demonstrations (spans tagged so); attempts teach nothing."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return shown(groups)

    return credit


def right_answers(
    distinct: Annotated[bool, Setting("train on each different answer to a task once")] = True,
    most: Annotated[int, Setting("most answers per task", "answers", low=1)] = 64,
):
    """The sampled tokens of correct episodes."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            seen: set[bytes] = set()
            for episode in group.episodes:
                words = episode.tokens[episode.sampled].tobytes()
                if not episode.correct or len(seen) >= most or (distinct and words in seen):
                    continue
                seen.add(words if distinct else words + bytes([len(seen) % 256]))
                signals.append(imitate(episode, episode.sampled))
        return signals

    return credit


def unjudged():
    """Every sampled token, without an advantage: for losses that need no verdict."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return [constant(e, 0.0) for g in groups for e in g.episodes]

    return credit
