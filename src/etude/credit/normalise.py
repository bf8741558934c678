"""What is subtracted from a group's rewards, and what divides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, centred, constant
from etude.settings import Setting
from etude.types import Group, Signal


def balanced_mean(
    shift: Annotated[float, Setting("baseline minus the mean reward of the group", low=-1, high=1)] = 0.0,
    balance: Annotated[bool, Setting("drop wrong answers at random till right ones are as many")] = False,
) -> Credit:
    """A_i = r_i - (mean of the kept + shift) (REC, arXiv 2509.24203)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            rewards, kept = group.rewards, np.arange(len(group.episodes))
            if balance:
                bad = rewards < rewards.mean()
                drawn = context.rng("balance", context.drawn, group.task.key).permutation(kept[bad])
                kept = np.sort(np.concatenate([kept[~bad], drawn[: sum(~bad)]]))
            advantages = centred(rewards[kept]) - shift
            signals += [constant(group.episodes[i], float(a)) for i, a in zip(kept, advantages, strict=True)]
        return signals

    return credit
