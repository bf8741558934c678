"""Credit from the outcomes of a group: each token of an episode gets the episode's advantage.

Notation: r_i is the reward of episode i of a group of G; advantages are numbers, never differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal

Credit = Callable[[Sequence[Group], Any], list[Signal]]


def constant(episode: Episode, advantage: float) -> Signal:
    """The same advantage on every sampled token."""
    return Signal(episode, np.where(episode.sampled, np.float32(advantage), np.float32(0)))


def laid(where: Array, values: Array | float) -> Array:
    """f32[T]: `values` on the tokens `where` (bool[T]), 0 elsewhere."""
    row = np.zeros(len(where), np.float32)
    row[where] = values
    return row


def centred(rewards: Array) -> Array:
    """r_i - mean(r)."""
    return rewards - rewards.mean() if len(rewards) else rewards


def leave_one_out(rewards: Array) -> Array:
    """r_i - mean of the others: G/(G-1) times the centred reward (arXiv 2402.14740). 0 for a lone episode."""
    g = len(rewards)
    return centred(rewards) * g / (g - 1) if g > 1 else np.zeros(g)


def standardised(rewards: Array, epsilon: float = 1e-4) -> Array:
    """(r_i - mean) / (std + epsilon), std over the group without Bessel's correction; 0 for equal rewards."""
    return centred(rewards) / (rewards.std() + epsilon) if len(rewards) else rewards


def each(advantages: Callable[[Array], Array]) -> Credit:
    """Credit that looks at one group at a time."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return [
            constant(episode, float(advantage))
            for group in groups
            for episode, advantage in zip(group.episodes, advantages(group.rewards), strict=True)
        ]

    return credit


def sampled(signal: Signal) -> Array:
    """bool[T]: the tokens that the policy wrote."""
    return signal.episode.sampled


def whitened(
    signals: Sequence[Signal],
    centre: bool = True,
    epsilon: float = 1e-8,
    on: Callable[[Signal], Array] = sampled,
) -> list[Signal]:
    """Advantages minus their mean, over their standard deviation, across all tokens `on` of the batch; 0 elsewhere."""
    masks = [on(s) for s in signals]
    flat = (
        np.concatenate([s.advantage[m] for s, m in zip(signals, masks, strict=True)])
        if signals
        else np.zeros(0)
    )
    if not len(flat):
        return list(signals)
    mean, std = (flat.mean() if centre else 0.0), flat.std() + epsilon
    return [
        replace(s, advantage=np.where(m, (s.advantage - mean) / std, 0).astype(np.float32))
        for s, m in zip(signals, masks, strict=True)
    ]


# ---- stages ------------------------------------------------------------------------------------------


def group_mean(std: Annotated[bool, Setting("divide by the group's standard deviation")] = False) -> Credit:
    return each(standardised if std else centred)


def others_mean() -> Credit:
    return each(leave_one_out)
