"""Credit from a learned value head: generalised advantage estimation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.group import Credit, constant, laid, whitened
from etude.settings import Setting
from etude.stages import Context
from etude.types import Array, Episode, Group, Signal

Gamma = Annotated[float, Setting("discount per token", low=0, high=1)]
Lambda = Annotated[float, Setting("GAE lambda", low=0, high=1)]


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


def terminal(episode: Episode, reward: float) -> Array:
    """f32[T]: the reward on the last sampled token, 0 elsewhere."""
    row = np.zeros(len(episode.tokens), np.float32)
    row[np.flatnonzero(episode.sampled)[-1:]] = reward
    return row


def token_gae(
    episodes: Sequence[Episode],
    rewards: Sequence[Array],
    context: Context,
    gamma: float,
    lam: float,
    whiten: bool = True,
) -> list[Signal]:
    """GAE over the sampled tokens of each episode, of f32[T] rewards, with the policy's head "value". Extras:
    `returns`, `values` (as predicted now)."""
    plain = [constant(e, 0.0) for e in episodes]
    values = context.rows(plain, lambda out: out.heads["value"][:, 0])
    signals = []
    for episode, reward, value in zip(episodes, rewards, values, strict=True):
        mask = episode.sampled
        advantage, returns = (laid(mask, x) for x in gae(reward[mask], value[mask], gamma, lam))
        signals.append(Signal(episode, advantage, extras={"returns": returns, "values": value}))
    return whitened(signals) if whiten else signals


@writes("policy", extras=("returns", "values"))
def value_baseline(
    gamma: Gamma = 1.0,
    lam: Lambda = 0.95,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
) -> Credit:
    """GAE over the sampled tokens of an episode; the reward comes with the last one."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        return token_gae(episodes, [terminal(e, e.reward) for e in episodes], context, gamma, lam, whiten)

    return credit
