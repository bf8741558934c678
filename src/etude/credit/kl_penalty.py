"""Rewards less a price for leaving a reference: at a fixed rate, at one that is steered, against one that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch

from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.group import Credit, constant, others_mean, whitened
from etude.credit.imitate import shown, tagged, unattempted
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal


def drift(episodes: Sequence[Episode], context: Any, name: str = "reference") -> list[Array]:
    """f32[T] each: log pi_old(y_t) - log pi_ref(y_t) at sampled tokens, 0 elsewhere. Its mean is the KL."""
    signals = context.with_logp([constant(e, 0.0) for e in episodes], name)
    return [np.where(s.episode.sampled, s.episode.logp - s.extras[name], 0) for s in signals]


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


class Regularised:
    """GAE of the outcome at the last token minus beta (log pi_old - log pi_ref) at every token; pi_ref is the
    policy at the first step with attempts. Demonstrations that nobody attempted are imitated
    (ReFT, arXiv 2401.08967)."""

    def __init__(
        self,
        beta: Annotated[float, Setting("price of leaving the warmed-up policy", "per nat", low=0)] = 0.05,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
        whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
    ) -> None:
        self.beta, self.gamma, self.lam, self.whiten = beta, gamma, lam, whiten
        self.anchor = Anchor()

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        if episodes:
            self.anchor(context)
        away = drift(episodes, context)
        rewards = [terminal(e, e.reward) - self.beta * d for e, d in zip(episodes, away, strict=True)]
        attempts = token_gae(episodes, rewards, context, self.gamma, self.lam, self.whiten)
        return attempts + shown(unattempted(groups), "returns", "values")

    def state_dict(self) -> dict[str, Any]:
        return {"anchored": self.anchor.down}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor.down = state["anchored"]


class Contrasted(Regularised):
    """ReFT's credit; beside it, weight rows for the contrast: "contrast" on right attempts, and "anchor" on the
    demonstration that stands beside attempts (CARFT, arXiv 2508.15868)."""

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = []
        for signal in super().__call__(groups, context):
            row = np.float32(signal.episode.correct) * signal.episode.sampled.astype(np.float32)
            signals.append(replace(signal, weights={**signal.weights, "contrast": row}))
        for annotated in (e for g in groups if g.episodes for e in g.demonstrations):
            row = tagged(annotated, "demonstration").astype(np.float32)
            signals.append(Signal(annotated, np.zeros_like(row), {"anchor": row}))
        return signals


def followed(beta: float, kl: float, target: float, part: float) -> float:
    """beta x (1 + clip(KL / target - 1, -0.2, 0.2) part): dearer while the divergence lies above its target."""
    return beta * (1 + float(np.clip(kl / target - 1, -0.2, 0.2)) * part)


class SpanRewards:
    """GAE of the marks (and, if asked, the outcome at the end) minus beta (log pi_old - log pi_ref). beta follows
    the divergence, as in arXiv 1909.08593: beta *= 1 + clip(KL / target - 1, -0.2, 0.2) episodes / horizon
    (Text2Grad, arXiv 2505.22338)."""

    def __init__(
        self,
        spans: Annotated[float, Setting("reward of a marked token", low=0)] = 1.0,
        outcome: Annotated[float, Setting("weight of the verdict, at the last token", low=0)] = 0.0,
        beta: Annotated[float, Setting("price of leaving the start, at first", "per nat", low=0)] = 0.05,
        target: Annotated[
            float, Setting("divergence that beta steers to", "nats per answer", low=0.001)
        ] = 3.0,
        horizon: Annotated[float, Setting("how slowly beta follows", "episodes", low=1)] = 10000.0,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
    ) -> None:
        self.spans, self.outcome, self.beta = spans, outcome, beta
        self.target, self.horizon, self.gamma, self.lam = target, horizon, gamma, lam

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        away = drift(episodes, context)
        rewards = [self._reward(e) - self.beta * d for e, d in zip(episodes, away, strict=True)]
        if episodes:
            self.beta = followed(
                self.beta, float(np.mean([d.sum() for d in away])), self.target, len(away) / self.horizon
            )
        return token_gae(episodes, rewards, context, self.gamma, self.lam)

    def _reward(self, episode: Episode) -> Array:
        return self.spans * np.array(episode.notes["marks"]) + terminal(
            episode, self.outcome * episode.reward
        )

    def report(self) -> dict[str, float]:
        return {"beta": self.beta}

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.beta = state["beta"]


@torch.no_grad()
def follow(anchor: Any, policy: Any, momentum: float) -> None:
    """theta_anchor <- momentum theta_anchor + (1 - momentum) theta."""
    for (_, mine), (_, theirs) in zip(anchor.parameters(), policy.parameters(), strict=True):
        mine.lerp_(theirs, 1 - momentum)
    anchor.publish()


def anchored(
    beta: Annotated[float, Setting("weight of log pi - log anchor in the reward", "nats", low=0)] = 0.01,
    momentum: Annotated[float, Setting("what the anchor keeps of itself per step", low=0, high=1)] = 0.99,
    whiten: Annotated[bool, Setting("whiten the advantages over the batch")] = False,
) -> Credit:
    """A_it = r_i - mean of the others - beta (log pi_old(y_it) - log pi_anchor(y_it)). The anchor moves first, which is
    the update after the step before (T1, arXiv 2501.11651)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        anchor = context.companions["reference"]
        follow(getattr(anchor, "policy", anchor), context.policy, momentum)
        plain = others_mean()(groups, context)
        gaps = drift([s.episode for s in plain], context)
        signals = [
            replace(s, advantage=(s.advantage - beta * gap).astype(np.float32))
            for s, gap in zip(plain, gaps, strict=True)
        ]
        return whitened(signals) if whiten else signals

    return credit
