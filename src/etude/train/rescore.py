"""What an update did to what had just been said: the log-probabilities of one group again, after the step.

Nothing is trained on them and no budget pays for them; they are there to be looked at, token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from etude.stages import Context
from etude.types import Group, Signal

AFTER = "after"  # the extra f32[T] that a signal is given


def rescored(
    context: Context, drawn: Sequence[Group], signals: Sequence[Signal]
) -> tuple[list[Signal], dict[str, float]]:
    """`signals` with `extras["after"]`, the log-probability of each sampled token under the policy as it is now, for
    one group of this step; and metrics: `rescored`, how many tokens that took, and `kl_update`, how far the step moved the
    policy, in nats a token. The policy's meter is left as it was.

    k3 = r - 1 - log r with r = pi_after / pi_before, on tokens sampled from pi_before
    """
    chosen = _one_group(drawn, signals)
    if not chosen:
        return list(signals), {"rescored": 0}
    before = context.policy.meter.state_dict()
    rows = context.rows([signals[i] for i in chosen], lambda out: out.logp)
    tokens = context.policy.meter.scored - before["scored"]
    context.policy.meter.load_state_dict(before)
    done = list(signals)
    moved = []
    for i, row in zip(chosen, rows, strict=True):
        mine = signals[i]
        done[i] = replace(mine, extras={**mine.extras, AFTER: row * mine.episode.sampled})
        moved.append((row - mine.episode.logp)[mine.episode.sampled])
    log_ratio = np.concatenate(moved).astype(np.float64).clip(-20, 20)
    return done, {"rescored": tokens, "kl_update": float(np.mean(np.expm1(log_ratio) - log_ratio))}


def _one_group(drawn: Sequence[Group], signals: Sequence[Signal]) -> list[int]:
    """The signals of the group with the most credit per attempt, as places in `signals`. Only what the policy wrote in
    this step, in the words that training sees, can be compared with itself: no replayed, hinted or given attempt."""
    fresh = {id(g.task): max((e.policy_version for e in g.episodes), default=-1) for g in drawn}
    places: dict[int, list[int]] = {}
    for i, signal in enumerate(signals):
        e = signal.episode
        plain = e.player == "policy" and not any(s.hidden or s.unseen for s in e.spans)
        if plain and e.sampled.any() and fresh.get(id(e.task)) == e.policy_version:
            places.setdefault(id(e.task), []).append(i)
    strength = {t: np.mean([np.abs(signals[i].advantage).max() for i in p]) for t, p in places.items()}
    best = max(strength, key=lambda t: strength[t], default=None)  # the first of equals
    return [] if best is None else places[best]
