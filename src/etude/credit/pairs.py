"""Preferences made from the outcomes of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.group import constant
from etude.objective.preference import PAIR
from etude.settings import Setting
from etude.stages import Context, Credit
from etude.types import Group, Signal

Pairs = Annotated[int, Setting("pairs per task", low=1, high=64)]
Margin = Annotated[float, Setting("least difference in reward within a pair", low=0, high=1)]


@writes("policy", extras=(PAIR,))
def preference_pairs(pairs: Pairs = 1, margin: Margin = 1e-6) -> Credit:
    """For each mixed group, `pairs` times a better and a worse episode, best against worst first; ties are
    broken by a keyed draw. Chosen tokens have advantage +1, rejected -1. Extra `PAIR`."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
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
                    signals.append(Signal(signal.episode, signal.advantage, extras={PAIR: mark}))
        return signals

    return credit
