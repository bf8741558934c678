"""Rewards less the price of leaving a reference policy: log pi_old - log pi_ref of every sampled token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.group import constant
from etude.credit.imitate import shown, unattempted
from etude.settings import Setting
from etude.stages import Context
from etude.types import Array, Episode, Group, Signal

KLPrice = Annotated[float, Setting("weight of the KL to the start", "per nat", low=0)]


def drift(episodes: Sequence[Episode], context: Context, name: str = "reference") -> list[Array]:
    """f32[T] each: log pi_old(y_t) - log pi_ref(y_t) at sampled tokens, 0 elsewhere. Its mean is the KL."""
    signals = context.with_logp([constant(e, 0.0) for e in episodes], name)
    return [np.where(s.episode.sampled, s.episode.logp - s.extras[name], 0) for s in signals]


@writes("policy", "imitation", extras=("returns", "values"))
class ActorCriticFromWarmup:
    """GAE of r_t = [t = T] R - beta (log pi_old - log pi_ref)(y_t), beta = `kl_weight`; pi_ref is the policy at the
    first step with attempts, that is, as the warm-up left it. Demonstrations that stand alone are imitated
    (ReFT, arXiv 2401.08967)."""

    def __init__(
        self,
        kl_weight: KLPrice = 0.05,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
        whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
    ) -> None:
        self.kl_weight, self.gamma, self.lam, self.whiten = kl_weight, gamma, lam, whiten
        self.anchored = False  # whether the reference has been set to the warmed-up policy

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        if episodes and not self.anchored:
            self._anchor(context)
        away = drift(episodes, context)
        rewards = [terminal(e, e.reward) - self.kl_weight * d for e, d in zip(episodes, away, strict=True)]
        attempts = token_gae(episodes, rewards, context, self.gamma, self.lam, self.whiten)
        return attempts + shown(unattempted(groups), "returns", "values")

    def _anchor(self, context: Context) -> None:
        """Gives the reference model the policy's weights."""
        reference = context.auxiliary["reference"]
        cost = {"meter": reference.state_dict().get("meter")}  # its count of operations stays its own
        reference.load_state_dict({**context.policy.state_dict(), **cost})
        self.anchored = True

    def state_dict(self) -> dict[str, Any]:
        return {"anchored": self.anchored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchored = state["anchored"]
