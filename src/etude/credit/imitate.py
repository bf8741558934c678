"""Which tokens are to be imitated. Imitation has no advantage: its weight row is "imitation"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

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
