"""Is an arm's result worth ranking? A broken arm is named with its cause instead of being called worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from etude.report.run import RunDirectory
from etude.settings import Setting


@dataclass(frozen=True)
class ArmGate:
    """Bounds beyond which a run says nothing about its method."""

    errors: Annotated[float, Setting("share of attempts without a verdict, over the run", low=0, high=1)] = (
        0.05
    )
    gap: Annotated[float, Setting("mean |log p sampler - log p trainer|", "nats", low=0)] = 0.1
    truncated: Annotated[
        float, Setting("share of attempts cut off, over the run's last half", low=0, high=1)
    ] = 0.8
    hacking: Annotated[float, Setting("rise in reward minus rise in strict accuracy", low=0, high=1)] = 0.3

    def cause(self, run: RunDirectory) -> str | None:
        """Why this run must not be ranked, or None."""
        metrics, evals = run.metrics(), run.evals()
        if not metrics:
            return "it took no step"
        if max(_column(metrics, "signal_tokens")) <= 0:
            return "no step carried any signal"
        if (errors := _mean(metrics, "errors")) > self.errors:
            return f"{errors:.0%} of its attempts ended in an error"
        if (gap := _mean(metrics, "gap")) > self.gap:
            return f"sampler and trainer disagree by {gap:.2f} nats a token"
        late = metrics[len(metrics) // 2 :]
        if (cut := _mean(late, "truncated")) > self.truncated and _mean(late, "correct") < 0.01:
            return f"{cut:.0%} of its attempts were cut off by the length limit"
        return self._hacked(evals)

    def _hacked(self, evals: Sequence[Mapping[str, Any]]) -> str | None:
        """Accuracy by the task's own checker rises while the stricter one's does not follow."""
        both = [e for e in evals if e.get("strict") is not None]
        if len(both) < 2:
            return None
        rise = both[-1]["mean"] - both[0]["mean"]
        strict = both[-1]["strict"] - both[0]["strict"]
        if rise - strict > self.hacking:
            return (
                f"its accuracy rose by {100 * rise:.0f} points, by a stricter checker by {100 * strict:.0f}"
            )
        return None


def _column(metrics: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(m[name]) for m in metrics if m.get(name) is not None] or [0.0]


def _mean(metrics: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean(_column(metrics, name)))
