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


def rescored(context: Context, drawn: Sequence[Group], signals: Sequence[Signal]) -> tuple[list[Signal], int]:
    """`signals` with `extras["after"]`, the log-probability of each sampled token under the policy as it is now, for
    one group of this step, and how many tokens that took. The policy's meter is left as it was."""
    chosen = _one_group(drawn, signals)
    if not chosen:
        return list(signals), 0
    before = context.policy.meter.state_dict()
    rows = context.rows([signals[i] for i in chosen], lambda out: out.logp)
    tokens = context.policy.meter.scored - before["scored"]
    context.policy.meter.load_state_dict(before)
    done = list(signals)
    for i, row in zip(chosen, rows, strict=True):
        mine = signals[i]
        done[i] = replace(mine, extras={**mine.extras, AFTER: row * mine.episode.sampled})
    return done, tokens


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
