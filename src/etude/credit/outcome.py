"""Credit from the outcomes of all groups of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, constant
from etude.errors import UserError, nearest
from etude.settings import Setting
from etude.types import Array, Group, Signal

Names = Annotated[str, Setting("scores that are credited, joined by +")]


def outcome(right: float, wrong: float) -> Credit:
    """`right` for reward 1, `wrong` for reward 0, and the line between them. An episode of advantage 0 is left
    out altogether: it counts in no denominator."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        judged = [(e, wrong + (right - wrong) * e.reward) for g in groups for e in g.episodes]
        return [constant(e, advantage) for e, advantage in judged if advantage]

    return credit


def signed(
    right: Annotated[float, Setting("weight of right answers; 0 leaves them out", low=0)] = 1.0,
    wrong: Annotated[float, Setting("weight of wrong answers; 0 leaves them out", low=0)] = 1.0,
) -> Credit:
    """+right for a right answer, -wrong for a wrong one (arXiv 2506.01347)."""
    return outcome(right, -wrong)


def assigned(groups: Sequence[Group], advantages: Sequence[Array]) -> list[Signal]:
    """One advantage per episode, f64[G] for each group, on all of its sampled tokens."""
    return [
        constant(episode, float(advantage))
        for group, row in zip(groups, advantages, strict=True)
        for episode, advantage in zip(group.episodes, row, strict=True)
    ]


def scores(groups: Sequence[Group], names: str) -> list[Array]:
    """f64[K, G] per group: the K scores `names` (joined by +) of its episodes. UserError for an unknown one."""
    wanted = names.split("+")
    for known in {tuple(e.scores) for g in groups for e in g.episodes}:
        if missing := [n for n in wanted if n not in known]:
            raise UserError(f"no score is called '{missing[0]}'{nearest(missing[0], known)}")
    return [np.array([[e.scores[n] for e in g.episodes] for n in wanted]) for g in groups]


BY_PASS_RATE: dict[str, Callable[[float], float]] = {
    "1": lambda r: 1.0,
    "1-r": lambda r: 1 - r,
    "odds": lambda r: ((1 - r) / r) ** 0.5,
}


def rated(
    weight: Annotated[
        str, Setting("w of a task of pass rate r; odds: root of (1-r)/r", choices=tuple(BY_PASS_RATE))
    ] = "1-r",
    floor: Annotated[float, Setting("least distance of r from 0 and 1", low=1e-6, high=0.5)] = 0.02,
) -> Credit:
    """A = w for a right answer, -w r/(1-r) for a wrong one: what the loss amounts to at pi_theta = pi_old. Extras:
    `rate`, the pass rate r of the group (NFT, arXiv 2505.18116)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            r = float(np.clip(np.mean([e.correct for e in group.episodes]), floor, 1 - floor))
            w = BY_PASS_RATE[weight](r)
            for e in group.episodes:
                signal = constant(e, w if e.correct else -w * r / (1 - r))
                signals.append(replace(signal, extras={"rate": np.full_like(signal.advantage, r)}))
        return signals

    return credit
