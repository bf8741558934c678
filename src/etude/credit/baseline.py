"""Credit from a learned value head: generalised advantage estimation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import constant, whitened
from etude.settings import Setting
from etude.types import Array, Group, Signal


def gae(rewards: Array, values: Array, gamma: float, lam: float, last: float = 0.0) -> tuple[Array, Array]:
    """Advantages and returns (f32[n] each) of one episode's n trained tokens (arXiv 1506.02438).

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, with V after the end = `last`.
    """
    advantages = np.zeros(len(rewards), np.float64)
    ahead, value = 0.0, last
    for t in range(len(rewards) - 1, -1, -1):
        ahead = rewards[t] + gamma * value - values[t] + gamma * lam * ahead
        advantages[t], value = ahead, values[t]
    return advantages.astype(np.float32), (advantages + values).astype(np.float32)


def value_baseline(
    gamma: Annotated[float, Setting("discount per token", low=0, high=1)] = 1.0,
    lam: Annotated[float, Setting("GAE lambda", low=0, high=1)] = 0.95,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """GAE over the sampled tokens of an episode; the reward comes with the last one. Extras: `returns`,
    `values` (as predicted when the batch was made)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        plain = [constant(e, 0.0) for g in groups for e in g.episodes]
        values = context.rows(plain, lambda out: out.heads["value"][:, 0])
        signals = []
        for signal, value in zip(plain, values, strict=True):
            mask = signal.episode.sampled
            reward = np.zeros(int(mask.sum()), np.float32)
            if len(reward):
                reward[-1] = signal.episode.reward
            advantage, returns = (np.zeros(len(mask), np.float32) for _ in range(2))
            advantage[mask], returns[mask] = gae(reward, value[mask], gamma, lam)
            signals.append(Signal(signal.episode, advantage, extras={"returns": returns, "values": value}))
        return whitened(signals) if whiten else signals

    return credit
