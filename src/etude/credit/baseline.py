"""Credit from a learned value head: generalised advantage estimation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import constant, laid, whitened
from etude.credit.imitate import tagged
from etude.objective.outcome import estimate_value
from etude.rollout.window import OPEN
from etude.settings import Setting
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
    context: Any,
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


def value_baseline(
    gamma: Gamma = 1.0,
    lam: Lambda = 0.95,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """GAE over the sampled tokens of an episode; the reward comes with the last one."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        return token_gae(episodes, [terminal(e, e.reward) for e in episodes], context, gamma, lam, whiten)

    return credit


def whole_answer(episode: Episode) -> Signal:
    """The answer's tokens with its reward as advantage; weight `first` on the first, where V(x) is read."""
    mask = episode.sampled | tagged(episode, "demonstration")
    reward = (mask * episode.reward).astype(np.float32)
    rows = {"policy": mask, "first": mask & (np.cumsum(mask) == 1)}
    return Signal(episode, reward, {n: r.astype(np.float32) for n, r in rows.items()}, {"reward": reward})


def above_value(
    baseline: Annotated[bool, Setting("subtract the start's expected reward V(x)")] = True,
    priority: Annotated[bool, Setting("draw what is kept anew, in proportion to A")] = False,
):
    """A = R - V(x); answers with A <= 0 are left out. V is a linear head on the frozen start, which learns from the
    step's attempts after they were judged by it (A-LoL, arXiv 2305.14718)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = [whole_answer(e) for g in groups for e in (*g.episodes, *g.demonstrations)]
        if baseline:
            critic = context.companions["critic"]
            values = context.rows(signals, lambda out: out.heads["value"][:, 0], policy=critic.policy)
            own = [s for s in signals if not s.episode.demonstration]
            critic.learn(estimate_value(), own, context.step, context.progress)
            expected = [float(v @ s.weights["first"]) for s, v in zip(signals, values, strict=True)]
            signals = [
                replace(s, advantage=s.advantage - np.float32(v) * s.weights["policy"])
                for s, v in zip(signals, expected, strict=True)
            ]
        kept = [s for s in signals if s.advantage.max(initial=0) > 0]
        if priority and kept:
            worth = np.array([s.advantage.max() for s in kept])
            drawn = context.rng("priority", context.drawn).choice(len(kept), len(kept), p=worth / worth.sum())
            kept = [kept[i] for i in drawn]
        return kept

    return credit


def egae(reward: Array, value: Array, gamma: float, lam: float, closed: bool) -> Array:
    """GAE with V = 0 after the end of a closed answer, and V(s_n) := V(s_{n-1}) after the last token of an open one."""
    return gae(reward, value, gamma, lam, last=0.0 if closed else float(value[-1]))[0]


def extended(
    gamma: Gamma = 1.0,
    lam: Annotated[float, Setting("GAE lambda of the policy", low=0, high=1)] = 0.95,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """The policy learns the tokens of this window by EGAE; the value learns closed answers whole, by their returns
    (T-PPO, arXiv 2506.15050)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        plain = [constant(e, 0.0) for g in groups for e in g.episodes if e.sampled.any()]
        signals = []
        for s, value in zip(plain, context.rows(plain, lambda out: out.heads["value"][:, 0]), strict=True):
            mask, closed = s.episode.sampled, s.episode.stop != OPEN
            fresh = np.arange(len(mask)) >= len(mask) - s.episode.notes["window"]
            reward, v = np.zeros(int(mask.sum())), value[mask]
            reward[-1] = s.episode.reward
            advantage = laid(mask, egae(reward, v, gamma, lam, closed))
            returns = laid(mask, gae(reward, v, gamma, 1.0)[1])
            weights = {"policy": fresh.astype(np.float32), "value": (mask & closed).astype(np.float32)}
            extras = {"returns": returns, "values": value}
            signals.append(Signal(s.episode, advantage * fresh, weights, extras))
        return whitened(signals, on=lambda s: s.weights["policy"] > 0) if whiten else signals

    return credit
