"""Advantages from what an episode scored by itself, without comparing it with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.credit.group import Credit, constant
from etude.errors import UserError, nearest
from etude.settings import Setting
from etude.stages import Context
from etude.types import Array, Group, Signal

Names = Annotated[str, Setting("scores that are credited, joined by +")]


def outcome(right: float, wrong: float) -> Credit:
    """`right` for reward 1, `wrong` for reward 0, and the line between them. An episode of advantage 0 is left
    out altogether: it counts in no denominator."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        judged = [(e, wrong + (right - wrong) * e.reward) for g in groups for e in g.episodes]
        return [constant(e, advantage) for e, advantage in judged if advantage]

    return credit


def scores(groups: Sequence[Group], names: str) -> list[Array]:
    """f64[K, G] per group: the K scores `names` (joined by +) of its episodes. UserError for an unknown one."""
    wanted = names.split("+")
    for known in {tuple(e.scores) for g in groups for e in g.episodes}:
        if missing := [n for n in wanted if n not in known]:
            raise UserError(f"no score is called '{missing[0]}'{nearest(missing[0], known)}")
    return [np.array([[e.scores[n] for e in g.episodes] for n in wanted]) for g in groups]
