"""Rewards less a price for leaving a reference: at a fixed rate, at one that is steered, against one that follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.group import constant
from etude.credit.imitate import shown, unattempted
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
        reference = context.auxiliary["reference"]
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
