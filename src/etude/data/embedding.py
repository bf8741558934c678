"""Where texts lie to each other, by the model's own hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etude.batch import pack, unpack
from etude.credit.imitate import imitate
from etude.models.policy import Policy
from etude.types import Array, Episode, SamplingParams


def embedded(policy: Policy, episodes: Sequence[Episode]) -> Array:
    """float64[episodes, width]: the mean of the last hidden states over an episode's tokens but the first, of length 1."""
    rows = [imitate(episode, np.ones(len(episode.tokens), bool)) for episode in episodes]
    batch = pack(rows, SamplingParams())
    hidden = policy.score(batch, frozenset({"hidden"})).hidden
    assert hidden is not None
    states = hidden.new_zeros((len(batch), hidden.shape[-1]))
    states[batch.needed.to(hidden.device) if len(hidden) != len(batch) else slice(None)] = hidden
    means = np.array([state[1:].mean(0) for state in unpack(states, batch, rows)], float)
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9))


def clustered(points: Array, number: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """k-means of float64[n, width]: the centres of at most `number` clusters, and int[n], the cluster of each point."""
    from scipy.cluster.vq import kmeans2

    k = min(number, len(points))
    centres, labels = kmeans2(points, k, minit="++", seed=int(rng.integers(2**31)), iter=50)
    return np.asarray(centres), np.asarray(labels)
