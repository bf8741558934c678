"""Credit for the steps of an answer, by what a probe after each of them found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, constant, whitened
from etude.rollout.probe import step_index
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal, Span


def prover_progress(q: Array, best_of: int) -> Array:
    """A_mu(h) = Q_mu(h) - Q_mu(h - 1) from the base policy's values before the first and after each step (f[H + 1]),
    for the prover best-of-K: Q_mu = 1 - (1 - Q_pi)^K."""
    return np.diff(1 - (1 - np.asarray(q, float)) ** best_of)


def with_progress(
    alpha: Annotated[float, Setting("weight of progress beside the outcome", low=0)] = 3.0,
    best_of: Annotated[int, Setting("attempts of which the prover keeps the best", low=1)] = 4,
):
    """A_t = r - mean r + alpha A_mu(step of t). The value before the first step is the group's mean reward,
    after the last step the outcome (PAV, arXiv 2410.08146)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            start = float(np.clip(group.rewards.mean(), 0, 1)) if group.episodes else 0.0
            for episode, base in zip(group.episodes, centred(group.rewards), strict=True):
                q = np.array([start, *episode.notes["q"], episode.reward])
                progress = prover_progress(q, best_of)[step_index(episode, episode.notes["cuts"])]
                signal = constant(episode, float(base))
                signal.advantage[episode.sampled] += alpha * progress[episode.sampled]
                signals.append(signal)
        return signals

    return credit


def accuracy(episodes: Sequence[Episode], context: Any) -> list[Array]:
    """f[K] each: the mean probability of the gold answer's tokens, forced after each step."""
    encode = context.policy.tokenizer.encode
    forced = []
    for episode in episodes:
        gold = encode(episode.task.answer or episode.task.reference)
        lead = np.array(episode.notes.get("lead", []), np.int32)
        for cut in episode.notes.get("cuts", []):
            before = Span("user", np.concatenate([episode.tokens[:cut], lead]))
            on = np.append(np.zeros(len(before)), np.ones(len(gold))).astype(np.float32)
            forced.append(
                Signal(Episode(episode.task, (before, Span("assistant", gold))), 0 * on, {"probe": on})
            )
    rows = context.rows(forced, lambda out: out.logp)
    means = iter(float(np.exp(r[s.weights["probe"] != 0]).mean()) for r, s in zip(rows, forced, strict=True))
    return [np.array([next(means) for _ in e.notes.get("cuts", [])]) for e in episodes]


def potential(accurate: Array, sure: Array) -> Array:
    """Phi = 1.5 Acc Conf + 0.5 Acc - Conf, in [-1, 1]: 1 sure and right, -1 sure and wrong, 0 unsure."""
    return 1.5 * accurate * sure + 0.5 * accurate - sure


def damping(phi: Array, alpha: float, saturated: float) -> Array:
    """f_k = 1 - alpha (1 - exp(-C_k)), C_k the number of earlier steps with Phi above `saturated`."""
    found = (phi > saturated).astype(float)
    return 1 - alpha * (1 - np.exp(-(np.cumsum(found) - found)))


def step_potentials(
    xi: Annotated[float, Setting("weight of a step's gain in potential", low=0)] = 0.5,
    alpha: Annotated[float, Setting("damping of steps after the solution was found", low=0, high=1)] = 0.5,
    saturated: Annotated[
        float, Setting("potential at which a solution counts as found", low=-1, high=1)
    ] = 0.9,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """A_t = (r - mean r) f_k + xi g_k in step k; g_k = exp(dPhi_k, scaled to [0, 1]) minus its mean. Words after
    the last probed step have that step's f, and g = 0 (SPAE, arXiv 2601.03823)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        base = [a for g in groups for a in centred(g.rewards)]
        phis = [
            potential(a, np.array(e.notes.get("confidence", [])))
            for e, a in zip(episodes, accuracy(episodes, context), strict=True)
        ]
        gains = [np.diff(phi, prepend=phi[:1]) for phi in phis]
        flat = np.concatenate(gains) if gains else np.zeros(0)
        low, high = (flat.min(), flat.max()) if len(flat) else (0.0, 0.0)
        raised = [np.exp((gain - low) / (high - low or 1.0)) for gain in gains]
        mean = float(np.concatenate(raised).mean()) if len(flat) else 0.0
        signals = []
        for episode, outcome, phi, up in zip(episodes, base, phis, raised, strict=True):
            f = damping(phi, alpha, saturated)
            f, g = np.append(f, f[-1] if len(f) else 1.0), np.append(up - mean, 0.0)
            step = step_index(episode, episode.notes.get("cuts", []))
            signal = constant(episode, 0.0)
            signal.advantage[:] = np.where(episode.sampled, outcome * f[step] + xi * g[step], 0)
            signals.append(signal)
        return whitened(signals) if whiten else signals

    return credit
