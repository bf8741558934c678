"""Rewards of tokens and turns from a companion that learns, from outcomes alone, what adds up to them: return
decomposition, or an implicit process reward."""

from __future__ import annotations

import numpy as np

from etude.credit.group import laid
from etude.types import Array, Episode, Signal


def judged(episode: Episode, advantage: float, right: bool, share: Array) -> Signal:
    on = episode.sampled.astype(np.float32)
    rows = {"policy": on, "right": on * right, "wrong": on * (not right)}
    return Signal(episode, advantage * on, rows, {"share": laid(episode.sampled, share)})
