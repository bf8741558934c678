"""Credit for attempts that the demonstration began: its words become the policy's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch

from etude.credit.attempts import adopted
from etude.credit.group import centred, constant
from etude.credit.imitate import tagged
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal


def hybrid_advantages(plain: Array, hybrid: float, joined: bool) -> tuple[Array, float, float]:
    """Of the ordinary attempts, of the prefix and of its continuation, from their rewards."""
    base = np.append(plain, hybrid).mean() if joined else plain.mean() if len(plain) else 0.0
    return plain - base, hybrid - base, hybrid - base if joined else hybrid


def prefixed(
    keep: Annotated[
        float, Setting("share of prefix tokens trained, those of highest entropy", low=0, high=1)
    ] = 0.2,
    joined: Annotated[
        bool, Setting("one baseline for all, as written; else each its own, as released")
    ] = False,
):
    """Prefix tokens become the policy's own: with its log-probabilities now, and the hybrid's advantage where
    its entropy is among the highest (Prefix-RFT, arXiv 2507.01679)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        hybrids = [e for g in groups for e in g.episodes if tagged(e, "prefix").any()]
        rows = {id(e): row for e, row in zip(hybrids, _seen(hybrids, context), strict=True)}
        signals = []
        for group in groups:
            plain = [e for e in group.episodes if id(e) not in rows]
            rewards = np.array([e.reward for e in plain])
            own = centred(rewards)
            for episode in (e for e in group.episodes if id(e) in rows):
                own, first, rest = hybrid_advantages(rewards, episode.reward, joined)
                logp, entropy = rows[id(episode)].T
                where = np.flatnonzero(tagged(episode, "prefix"))
                kept = where[np.argsort(-entropy[where], kind="stable")[: round(keep * len(where))]]
                advantage = np.where(episode.sampled, np.float32(rest), np.float32(0))
                advantage[kept] = first
                signals.append(Signal(adopted(episode, tagged(episode, "prefix"), logp), advantage))
            signals += [constant(e, float(a)) for e, a in zip(plain, own, strict=True)]
        return signals

    return credit


def _seen(episodes: Sequence[Episode], context: Any) -> list[Array]:
    """f32[T, 2] each: log-probability and entropy of the prefix tokens under the policy as it is."""
    masks = [tagged(e, "prefix").astype(np.float32) for e in episodes]
    signals = [Signal(e, 0 * m, {"policy": m}) for e, m in zip(episodes, masks, strict=True)]
    return context.rows(signals, lambda out: torch.stack([out.logp, out.entropy], -1), {"entropy"})
