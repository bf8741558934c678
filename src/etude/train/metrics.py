"""The numbers of a step. Means are per episode: how an episode was cut into turns changes none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.evaluate.transitions import transitions
from etude.rollout.full import FULL
from etude.tools.kit import CALLS, use_of
from etude.types import Episode, Group, Signal


def step_metrics(drawn: Sequence[Group], learnt: dict[str, float]) -> dict[str, Any]:
    """Everything known about a step but its time and cost. `drawn` holds all groups, trained on or not."""
    episodes = [e for g in drawn for e in g.episodes]
    failed = sum(len(g.failed) for g in drawn)

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    metrics: dict[str, Any] = {
        "reward": mean([e.reward for e in episodes]),
        "correct": mean([float(e.correct) for e in episodes]),
        "signal": mean([float(g.mixed) for g in drawn]),
        "unsolved": mean([float(not any(e.correct for e in g.episodes)) for g in drawn if g.episodes]),
        "length": mean([float(e.sampled.sum()) for e in episodes]),
        "truncated": mean([float(e.stop == "length") for e in episodes]),
        "full": mean([float(e.stop == "length" and FULL in e.notes) for e in episodes]),
        "turns": mean([float(sum(s.sampled for s in e.spans)) for e in episodes]),
        "errors": failed / max(1, failed + len(episodes)),
        "groups": float(len(drawn)),
        "demonstrated": mean([float(bool(g.demonstrations)) for g in drawn]),
    }
    if said := [e for e in episodes if e.player == "policy" and e.sampled.any()]:
        # Sampled from the policy itself, -log pi is an unbiased reading of its entropy.
        nats = sum(float(e.logp.sum()) for e in said) / sum(int(e.sampled.sum()) for e in said)
        metrics["entropy"] = 0.0 - nats  # never the other zero
    for name in {n for e in episodes for n in e.scores if n != "reward"}:
        metrics[f"score/{name}"] = mean([e.scores[name] for e in episodes if name in e.scores])
    metrics |= {
        f"tools/{name}": n
        for name, n in use_of([e.notes[CALLS] for e in episodes if CALLS in e.notes]).items()
    }
    metrics |= _noted(episodes)
    metrics |= {f"attempts/{name}": share for name, share in transitions(drawn).items()}
    for kind in sorted({g.task.kind for g in drawn}):
        mine = [e for g in drawn if g.task.kind == kind for e in g.episodes]
        metrics[f"kind/{kind}/reward"] = mean([e.reward for e in mine])
        metrics[f"kind/{kind}/share"] = mean([float(g.task.kind == kind) for g in drawn])
    return metrics | learnt


def lengths(drawn: Sequence[Group], signals: Sequence[Signal]) -> dict[str, float]:
    """How long the episodes are that were sampled, and those of them that are trained on, in sampled tokens: that a filter, or
    waiting for the slow, trains the short ones alone is seen here."""
    of = {
        "sampled": [int(e.sampled.sum()) for g in drawn for e in g.episodes],
        "trained": [
            int(s.episode.sampled.sum())
            for s in signals
            if s.episode.sampled.any() and any(np.any(row) for row in s.weights.values())
        ],
    }
    return {
        f"length/{name}/p{q}": float(np.percentile(found, q))
        for name, found in of.items()
        if found
        for q in (10, 50, 90)
    }


def _noted(episodes: Sequence[Episode]) -> dict[str, float]:
    """What methods noted of their episodes. noted/NAME: the share of episodes with such a note that is not 0, and how many
    of these are right; of a note of several numbers, the mean of their magnitudes."""
    found: dict[str, float] = {}
    for name in {name for e in episodes for name in e.notes} - {"limit", CALLS}:
        noted = [e for e in episodes if e.notes.get(name)]
        kinds = {type(e.notes[name]) for e in noted}
        if kinds <= {bool, int, dict}:
            found[f"noted/{name}"] = len(noted) / len(episodes)
            found[f"noted/{name}/correct"] = float(np.mean([e.correct for e in noted])) if noted else 0.0
        elif kinds == {list}:
            each = [
                v
                for e in noted
                for part in e.notes[name]
                for v in (part if isinstance(part, list) else [part])
            ]
            if numbers := [abs(v) for v in each if isinstance(v, int | float)]:
                found[f"noted/{name}"] = float(np.mean(numbers))
    return found
