"""Preferences made from the outcomes of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.group import constant
from etude.settings import Setting
from etude.types import Group, Signal


def preference_pairs(
    pairs: Annotated[int, Setting("pairs per task", low=1, high=64)] = 1,
    margin: Annotated[float, Setting("least difference in reward within a pair", low=0, high=1)] = 1e-6,
):
    """For each mixed group, `pairs` times a better and a worse episode, best against worst first; ties are
    broken by a keyed draw. Chosen tokens have advantage +1, rejected -1; `extras["pair"]` numbers the pair
    from 1 within its group."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals: list[Signal] = []
        for group in groups:
            rewards = group.rewards
            draw = seeds.generator(context.seed, "pairs", context.step, group.task.key).random(len(rewards))
            order = np.lexsort((draw, rewards))
            for number in range(min(pairs, len(order) // 2)):
                worst, best = order[number], order[-1 - number]
                if rewards[best] - rewards[worst] < margin:
                    break
                for index, sign in ((best, 1.0), (worst, -1.0)):
                    signal = constant(group.episodes[index], sign)
                    mark = np.full(len(signal.advantage), number + 1, np.float32)
                    signals.append(Signal(signal.episode, signal.advantage, extras={"pair": mark}))
        return signals

    return credit
