"""Which tokens are to be imitated. Imitation has no advantage: its weight row is `IMITATION`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from etude.rollout.demonstrate import DEMONSTRATED
from etude.types import Array, Episode, Group, Signal

IMITATION = "imitation"
"""The weight row of cross-entropy (`objective.imitation`)."""


def imitate(episode: Episode, where: Array, weight: float = 1.0) -> Signal:
    """Cross-entropy with `weight` on the tokens `where` (bool[T]); nothing else."""
    on = np.where(where, weight, 0).astype(np.float32)
    return Signal(episode, np.zeros(len(where), np.float32), {IMITATION: on})


def tagged(episode: Episode, tag: str) -> Array:
    """bool[T]: the tokens of spans with this tag."""
    return np.concatenate([np.full(len(s), s.tag == tag) for s in episode.spans])


def shown(groups: Sequence[Group], *blank: str) -> list[Signal]:
    """The demonstrations, to be imitated; with extras `blank`, which the loss reads on attempts only."""
    signals = [imitate(e, tagged(e, DEMONSTRATED)) for g in groups for e in g.demonstrations]
    return [replace(s, extras=dict.fromkeys(blank, np.zeros_like(s.advantage))) for s in signals]


def unattempted(groups: Sequence[Group]) -> list[Group]:
    """The groups in which nothing but a demonstration was asked for."""
    return [g for g in groups if not (g.episodes or g.failed)]
