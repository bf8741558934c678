"""Imitation of whole trajectories but for the turns that went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.expert import CORRECTION, MOVE, WRONG
from etude.settings import Setting
from etude.stages import Context
from etude.types import Group, Signal


@writes(IMITATION)
class PartlyMasked:
    """Imitation of demonstrations: of a task's own solution, and of trajectories that ended well without their wrong turns, which
    are only read."""

    def __init__(self, masked: Annotated[bool, Setting("wrong turns are not imitated")] = True) -> None:
        self.learnt = (DEMONSTRATED, MOVE, CORRECTION, *(() if masked else (WRONG,)))
        self.wrong: list[bool] = []  # of each turn of the last update's trajectories

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.demonstrations]
        self.wrong = [s.tag == WRONG for e in episodes for s in e.spans if s.tag in (MOVE, WRONG)]
        signals = []
        for episode in episodes:
            on = np.logical_or.reduce([tagged(episode, tag) for tag in self.learnt])
            if on.any() and (episode.correct or tagged(episode, DEMONSTRATED).any()):
                signals.append(imitate(episode, on))
        return signals

    def report(self) -> dict[str, float]:
        """`wrong`: the share of turns that were wrong."""
        return {"wrong": float(np.mean(self.wrong)) if self.wrong else 0.0}
