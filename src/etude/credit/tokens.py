"""Credit from rewards that stand on tokens, and from demonstrations that stand beside attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.baseline import gae
from etude.credit.group import constant, whitened
from etude.credit.imitate import imitate, tagged
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal

Gamma = Annotated[float, Setting("discount per token", low=0, high=1)]
Lambda = Annotated[float, Setting("GAE lambda", low=0, high=1)]


def terminal(episode: Episode, reward: float) -> Array:
    """f32[T]: the reward on the last sampled token, 0 elsewhere."""
    row = np.zeros(len(episode.tokens), np.float32)
    row[np.flatnonzero(episode.sampled)[-1:]] = reward
    return row


def drift(episodes: Sequence[Episode], context: Any, name: str = "reference") -> list[Array]:
    """f32[T] each: log pi_old(y_t) - log pi_ref(y_t) at sampled tokens, 0 elsewhere. Its mean is the KL."""
    signals = context.with_logp([constant(e, 0.0) for e in episodes], name)
    return [np.where(s.episode.sampled, s.episode.logp - s.extras[name], 0) for s in signals]


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
        advantage, returns = np.zeros(len(mask), np.float32), np.zeros(len(mask), np.float32)
        advantage[mask], returns[mask] = gae(reward[mask], value[mask], gamma, lam)
        signals.append(Signal(episode, advantage, extras={"returns": returns, "values": value}))
    return whitened(signals) if whiten else signals


def shown(groups: Sequence[Group], *blank: str) -> list[Signal]:
    """The demonstrations, to be imitated; with extras `blank`, which the loss reads on attempts only."""
    signals = [imitate(e, tagged(e, "demonstration")) for g in groups for e in g.demonstrations]
    return [replace(s, extras=dict.fromkeys(blank, np.zeros_like(s.advantage))) for s in signals]


def unattempted(groups: Sequence[Group]) -> list[Group]:
    """The groups in which nothing but a demonstration was asked for."""
    return [g for g in groups if not (g.episodes or g.failed)]


def adopted(episode: Episode, where: Array, logp: Array) -> Episode:
    """The episode as if the policy had sampled the spans at `where` (bool[T], whole spans), with f32[T] `logp`."""
    starts = np.cumsum([0, *(len(s) for s in episode.spans)])
    spans = [
        replace(span, sampled=True, logp=logp[start:end]) if where[start:end].any() else span
        for span, start, end in zip(episode.spans, starts, starts[1:], strict=False)
    ]
    return replace(episode, spans=tuple(spans))


class Anchor:
    """Lays the companion "reference" where the policy stands when first called: at the end of a warm-up."""

    def __init__(self) -> None:
        self.down = False

    def __call__(self, context: Any) -> None:
        if self.down:
            return
        reference = context.companions["reference"]
        own = {"meter": reference.state_dict().get("meter")}  # what it has cost stays its own
        reference.load_state_dict({**context.policy.state_dict(), **own})
        self.down = True
