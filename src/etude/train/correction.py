"""Attempts that were not sampled by the policy that learns from them, corrected by importance weights.

An engine computes with another rounding than the trainer, and where sampling is a step ahead its weights are older. The batch is
scored once with the policy as it is before it learns (the proximal policy, arXiv 2505.24298). Then every loss is given

    log pi_old := log pi_proximal,      w_t := w_t min(pi_proximal / pi_sampler, C)

which is data: no objective knows of it. `masked` leaves out tokens whose ratio lies outside of [1/C, C]; they stay in the
denominators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from etude.stages import Context
from etude.types import Array, Episode, Signal, Span

KINDS = ("auto", "none", "truncated", "masked")
NOTHING = 1e-30  # the weight of a token that is left out: 0 would take it out of the denominators too


def corrected(
    signals: Sequence[Signal], context: Context, kind: str, bound: float, oldest: int
) -> tuple[list[Signal], dict[str, float]]:
    """Signals that say what the policy as it is now would have said, weighted; and metrics over all corrected tokens: `gap`,
    `kl_sampler`, `correction/weight` (the mean), `correction/cut` (the share that was truncated or masked). Only what the
    policy itself sampled with the weights `oldest` or later, in the words that training sees, is corrected: what a method
    replays, or hints at, is the method's own affair."""
    chosen = [i for i, s in enumerate(signals) if _own(s.episode, oldest)]
    if not chosen:
        return list(signals), {}
    rows = context.rows([signals[i] for i in chosen], lambda out: out.logp)
    done, deltas, weights = list(signals), [], []
    for i, row in zip(chosen, rows, strict=True):
        sampled = signals[i].episode.sampled & (row != 0)  # a token that is not scored is not trained either
        delta = np.where(sampled, row - signals[i].episode.logp, 0).astype(np.float32)
        weight = importance(delta, kind, bound)
        done[i] = _weighted(signals[i], np.where(sampled, row, signals[i].episode.logp), weight)
        deltas.append(delta[sampled])
        weights.append(weight[sampled])
    delta, weight = np.concatenate(deltas).astype(np.float64), np.concatenate(weights)
    if not len(delta):
        return done, {}
    ratio = np.exp(delta.clip(-20, 20))
    cut = ratio > bound if kind == "truncated" else (ratio > bound) | (ratio < 1 / bound)
    return done, {
        "gap": float(np.abs(delta).mean()),
        "kl_sampler": float((ratio - 1 - delta.clip(-20, 20)).mean()),
        "correction/weight": float(weight.mean()),
        "correction/cut": float(cut.mean()),
    }


def importance(delta: Array, kind: str, bound: float) -> Array:
    """f32[T] weights of f32[T] log-ratios log pi_proximal - log pi_sampler."""
    ratio = np.exp(delta.astype(np.float64).clip(-20, 20))
    inside = (ratio <= bound) & (ratio >= 1 / bound)
    weight: Array = np.minimum(ratio, bound) if kind == "truncated" else np.where(inside, ratio, NOTHING)
    return weight.astype(np.float32)


def _own(episode: Episode, oldest: int) -> bool:
    plain = not any(s.hidden or s.unseen for s in episode.spans)
    return (
        plain
        and episode.player == "policy"
        and episode.policy_version >= oldest
        and bool(episode.sampled.any())
    )


def _weighted(signal: Signal, logp: Array, weight: Array) -> Signal:
    """The signal with log pi_old = f32[T] `logp` and all its weights times f32[T] `weight`."""
    spans: list[Span] = []
    start = 0
    for span in signal.episode.spans:
        part = logp[start : start + len(span)].astype(np.float32)
        spans.append(replace(span, logp=part) if span.sampled else span)
        start += len(span)
    weights = {name: row * weight for name, row in signal.weights.items()}
    return replace(signal, episode=replace(signal.episode, spans=tuple(spans)), weights=weights)
