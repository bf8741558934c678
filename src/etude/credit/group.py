"""Advantages from the rewards of a group: every token of an episode gets the episode's advantage.

Notation: r_i is the reward of episode i of a group, the G episodes of one task. Advantages are numbers, never
differentiated. `advantage(baseline, scale)` is the credit stage of every method that only chooses what is
subtracted from a reward and what divides the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.settings import Setting
from etude.stages import Context
from etude.stages import Credit as Credit
from etude.types import Array, Episode, Group, Signal

EPSILON = 1e-4  # added to a standard deviation that divides


def constant(episode: Episode, advantage: float) -> Signal:
    """The same advantage on every sampled token."""
    return Signal(episode, np.where(episode.sampled, np.float32(advantage), np.float32(0)))


def assigned(groups: Sequence[Group], advantages: Sequence[Array]) -> list[Signal]:
    """One advantage per episode, f64[G] for each group, on all of its sampled tokens."""
    return [
        constant(episode, float(advantage))
        for group, row in zip(groups, advantages, strict=True)
        for episode, advantage in zip(group.episodes, row, strict=True)
    ]


def laid(where: Array, values: Array | float) -> Array:
    """f32[T]: `values` on the tokens `where` (bool[T]), 0 elsewhere."""
    row = np.zeros(len(where), np.float32)
    row[where] = values
    return row


# ---- baselines: f64[G] -> f64[G] ------------------------------------------------------------------------------------


def average(values: Array) -> Any:
    """The mean. Of equal numbers exactly that number: what rounding leaves of their differences would be a signal."""
    return values[0] if (values == values[0]).all() else values.mean()


def centred(rewards: Array) -> Array:
    """r_i - mean(r)."""
    return rewards - average(rewards) if len(rewards) else rewards


def leave_one_out(rewards: Array) -> Array:
    """r_i - mean of the others: G/(G-1) times the centred reward (arXiv 2402.14740). 0 for a lone episode."""
    g = len(rewards)
    return centred(rewards) * g / (g - 1) if g > 1 else np.zeros(g)


def standardised(rewards: Array, epsilon: float = EPSILON) -> Array:
    """(r_i - mean) / (std + epsilon), std over the group without Bessel's correction; 0 for equal rewards."""
    return centred(rewards) / (rewards.std() + epsilon) if len(rewards) else rewards


BASELINES: dict[str, Callable[[Array], Array]] = {
    "group mean": centred,
    "leave one out": leave_one_out,
    "off": lambda rewards: rewards,
}


# ---- scales over the batch ------------------------------------------------------------------------------------------


def sampled(signal: Signal) -> Array:
    """bool[T]: the tokens that the policy wrote."""
    return signal.episode.sampled


def whitened(
    signals: Sequence[Signal],
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
    mean, std = average(flat), flat.std() + epsilon
    return [
        replace(s, advantage=np.where(m, (s.advantage - mean) / std, 0).astype(np.float32))
        for s, m in zip(signals, masks, strict=True)
    ]


# ---- stages ---------------------------------------------------------------------------------------------------------


def each(advantages: Callable[[Array], Array]) -> Credit:
    """Credit that looks at the rewards of one group at a time: f64[G] -> f64[G]."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        return assigned(groups, [advantages(group.rewards) for group in groups])

    return credit


def advantage(
    baseline: Annotated[
        str, Setting("what is subtracted from an episode's reward", choices=tuple(BASELINES))
    ] = "group mean",
    scale: Annotated[
        str,
        Setting(
            "what divides: the std of the group's rewards, of all rewards of the batch; whitened: minus the mean and "
            "over the std of all tokens of the batch",
            choices=("off", "group std", "batch std", "whitened"),
        ),
    ] = "off",
) -> Credit:
    """A_i = (r_i - baseline) / scale, on every sampled token of episode i.

    baseline   group mean     mean of r over the group            (REINFORCE, GRPO)
               leave one out  mean of r over the other episodes   (RLOO, arXiv 2402.14740)
    scale      group std      std of r over the group + 1e-4      (GRPO, arXiv 2402.03300)
               batch std      std of r over all groups + 1e-4     (Lite PPO, arXiv 2508.08221)
               whitened       (A - mean A) / (std A + 1e-8) over the tokens of all groups (REINFORCE++, arXiv 2501.03262)
    """

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        rewards = [group.rewards for group in groups]
        advantages = [BASELINES[baseline](r) for r in rewards]
        if scale == "group std":
            advantages = [
                a / (r.std() + EPSILON) if len(r) else a for a, r in zip(advantages, rewards, strict=True)
            ]
        if scale == "batch std":
            std = np.concatenate(rewards).std() if rewards else 0.0
            advantages = [a / (std + EPSILON) for a in advantages]
        signals = assigned(groups, advantages)
        return whitened(signals) if scale == "whitened" else signals

    return credit
