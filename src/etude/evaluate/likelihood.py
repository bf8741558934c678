"""How likely a model finds given answers."""

from __future__ import annotations

from collections.abc import Sequence

from etude.batch import pack, unpack
from etude.credit.imitate import imitate, tagged
from etude.models.policy import Policy
from etude.rollout.demonstrate import DEMONSTRATED, solution
from etude.types import Array, SamplingParams, Task


def reference_logp(policy: Policy, tasks: Sequence[Task]) -> list[Array]:
    """f32[n] of each task: the log-probability of every token of its reference, as a reply to its prompt at temperature 1."""
    signals = []
    for task in tasks:
        episode = solution(task, policy.renderer)
        signals.append(imitate(episode, tagged(episode, DEMONSTRATED)))
    batch = pack(signals, SamplingParams())
    rows = unpack(policy.score(batch).logp, batch, signals)
    return [row[s.weights["imitation"] > 0] for row, s in zip(rows, signals, strict=True)]
