"""How far the policy has moved from its starting weights, on a few fixed tokens.

The metric `kl_sampler` compares the policy with the one that sampled the batch: 0 where each batch is used once, however
far the run has come. This one compares it with the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from etude.stages import Context
from etude.types import Array, Episode, Group, Signal, Span, Task, Verdict

TOKENS = 256  # at most


@dataclass
class Drift:
    """`begin` before the first update, `measure` whenever a number is wanted. Checkpointed as it is."""

    spans: list[tuple[Span, ...]] = field(default_factory=list)  # of the fixed episodes
    logp: list[Array] = field(default_factory=list)  # f32[T] each: under the starting weights

    def begin(self, context: Context, drawn: Sequence[Group]) -> None:
        """Fixes the first sampled episodes of the first step, up to `TOKENS` tokens but at least one episode, and their
        log-probabilities under the starting weights."""
        plain = (e for g in drawn for e in g.episodes if e.player == "policy" and e.sampled.any())
        used = 0
        for episode in plain:
            used += int(episode.sampled.sum())
            if self.spans and used > TOKENS:
                break
            self.spans.append(episode.spans)
        self.logp = context.rows(self._signals(), lambda out: out.logp)

    def measure(self, context: Context) -> dict[str, float]:
        """{"kl_start": k3, the unbiased estimate of KL(start || policy), mean over tokens, nats}; nothing before `begin`.

        k3 = r - 1 - log r with r = pi_theta / pi_start, on tokens sampled from pi_start
        """
        signals = self._signals()
        if not signals:
            return {}
        now = context.rows(signals, lambda out: out.logp)
        own = np.concatenate([s.episode.sampled for s in signals])
        log_ratio = (np.concatenate(now) - np.concatenate(self.logp)).astype(np.float64)[own].clip(-20, 20)
        return {"kl_start": float(np.mean(np.expm1(log_ratio) - log_ratio))}

    def _signals(self) -> list[Signal]:
        episodes = [Episode(Task((), _unchecked), spans) for spans in self.spans]
        return [Signal(e, np.zeros(len(e.tokens), np.float32)) for e in episodes]


def _unchecked(answer: str) -> Verdict:
    raise TypeError("a recorded episode is not checked again")
