"""Credit for second attempts: what the first, the help it led to and the second are each compared with, and what of the
second is learnt as if it had needed no help. Rewards: scores `first` and `second`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.attempts import adopted, compared, distilled, on_parts, scores_of, with_extra
from etude.credit.group import centred
from etude.credit.imitate import tagged
from etude.reward.attempts import progress_bonus
from etude.rollout.attempts import nth
from etude.rollout.second import CRITIQUE, REFLECTION
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal

Gamma = Annotated[float, Setting("what the second turn's reward counts for the first", low=0, high=1)]


def kept(rewards: Sequence[float | None]) -> list[float]:
    """max(r_2, 0): how strongly each second attempt is learnt without its reflection; 0 where there was none."""
    return [max(r or 0.0, 0.0) for r in rewards]


def experience(
    std: Annotated[bool, Setting("divide by the standard deviation of the part within the group")] = True,
    reflections: Annotated[bool, Setting("train the reflections")] = True,
    seconds: Annotated[bool, Setting("train second attempts with their reflection in view")] = True,
):
    """GRPO's advantage for first attempts among first attempts, for second among second, for reflections by the
    reward of the attempt that they led to; and second attempts that succeeded, behind the bare question, with
    advantage max(r_2, 0): row "distilled" (ERL, arXiv 2602.13949)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            outcome = scores_of(group, "second")
            first, second = compared(scores_of(group, "first"), std), compared(outcome, std)
            praise = kept(outcome)
            for i, episode in enumerate(group.episodes):
                parts = {nth(1): first[i]}
                parts |= {REFLECTION: second[i]} if reflections else {}
                parts |= {nth(2): second[i]} if seconds else {}
                signals.append(on_parts(episode, parts))
                if praise[i]:
                    signals += distilled(episode, nth(2), "distilled", praise[i])
        return signals

    return credit


def kl_row(episode: Episode, first: float, others: float) -> Array:
    """f32[T]: the weight of the KL on each token of attempt 1, and on those of attempt 2."""
    return (first * tagged(episode, nth(1)) + others * tagged(episode, nth(2))).astype(np.float32)


def two_stages(
    first_stage: Annotated[
        float, Setting("share of the run in which only the second attempt is rewarded", low=0, high=1)
    ] = 0.5,
    alpha: Annotated[float, Setting("bonus for progress from the first to the second attempt", low=0)] = 10.0,
    beta1: Annotated[
        float, Setting("weight of the KL to the start, everywhere and always", "nats", low=0)
    ] = 0.01,
    beta2: Annotated[
        float, Setting("weight added to it on first attempts in the first stage", "nats", low=0)
    ] = 0.1,
    baseline: Annotated[bool, Setting("subtract the group's mean from each attempt's reward")] = True,
):
    """Stage I: r_2 for the second attempt, a strong KL (and no reward) for the first. Stage II: r_1 for the first,
    r_2 + alpha (r_2 - r_1) for the second. No attempt is credited with the reward of the other
    (SCoRe, arXiv 2409.12917)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        early = context.progress < first_stage
        signals = []
        for group in groups:
            first = [r or 0.0 for r in scores_of(group, "first")]
            second = scores_of(group, "second")
            if not early:
                second = [
                    None if b is None else progress_bonus(a, b, alpha)
                    for a, b in zip(first, second, strict=True)
                ]
            a, b = ((compared(r) if baseline else [x or 0.0 for x in r]) for r in (first, second))
            for i, episode in enumerate(group.episodes):
                parts = {nth(2): b[i]} if early else {nth(1): a[i], nth(2): b[i]}
                kl = kl_row(episode, beta1 + beta2 * early, beta1)
                signal = on_parts(episode, parts)
                signals.append(replace(signal, weights={**signal.weights, "kl": kl}))
        return signals

    return credit


def chosen(refined: Sequence[float | None]) -> int | None:
    """The first of the best refinements; None where there is none."""
    known = [-1.0 if r is None else r for r in refined]
    best = int(np.argmax(known)) if known else 0
    return best if known and refined[best] is not None else None


def mixed_group(first: Sequence[float], refined: Sequence[float | None]) -> tuple[list[float], float | None]:
    """Advantages r - mean of the originals and of the chosen refinement, which takes the place of the last
    original; that one gets 0."""
    pick = chosen(refined)
    if pick is None:
        return centred(np.array(first)).tolist(), None
    *advantages, last = centred(np.array([*first[:-1], refined[pick]])).tolist()
    return [*advantages, 0.0], last


def with_a_refinement():
    """`mixed_group`; the refinement behind the bare question. Extra `refined`: 1 on its tokens
    (Critique-GRPO, arXiv 2506.03106)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            first = [r or 0.0 for r in scores_of(group, "first")]
            refined = scores_of(group, "second")
            advantages, extra = mixed_group(first, refined)
            pick = chosen(refined)
            mine = [on_parts(e, {nth(1): a}) for e, a in zip(group.episodes, advantages, strict=True)]
            if pick is not None and extra is not None:
                last = mine[-1]  # replaced: it counts in no denominator
                mine[-1] = replace(last, weights={"policy": np.zeros_like(last.advantage)})
                signals += with_extra(distilled(group.episodes[pick], nth(2), "policy", extra), refined=1.0)
            signals += with_extra(mine, refined=0.0)
        return signals

    return credit


def discounted(first: float, second: float | None, gamma: float) -> float:
    """R_1 = r_1 + gamma r_2, or r_1 where there was no second attempt."""
    return first + gamma * (second or 0.0)


def two_turns(groups: Sequence[Group], gamma: float) -> list[Signal]:
    """Both attempts, each turn's return against the mean of that turn's returns in the group
    (RLTF, arXiv 2602.02482)."""
    signals = []
    for group in groups:
        seconds = scores_of(group, "second")
        firsts = zip(scores_of(group, "first"), seconds, strict=True)
        first, second = compared([discounted(a or 0.0, b, gamma) for a, b in firsts]), compared(seconds)
        for episode, a, b in zip(group.episodes, first, second, strict=True):
            signals.append(on_parts(episode, {nth(1): a, nth(2): b}))
    return signals


def self_distilled(
    gamma: Gamma = 0.1,
    floor: Annotated[
        float, Setting("log-probability without the critique below which a token is left out", "nats", high=0)
    ] = -5.0,
):
    """`two_turns`, and the second attempt under the prompt without the critique, with r_2 - mean r_1: row
    "distilled". Its old log-probabilities are those of that prompt (RLTF-SD, arXiv 2602.02482)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        helped = []
        for group in groups:
            baseline = float(np.mean([s or 0.0 for s in scores_of(group, "first")] or [0.0]))
            for episode in group.episodes:
                gain = episode.scores.get("second", 0.0) - baseline
                helped += distilled(episode, nth(2), "distilled", gain)
        old = context.rows(helped, lambda out: out.logp)
        return two_turns(groups, gamma) + [
            _known(s, logp, floor) for s, logp in zip(helped, old, strict=True)
        ]

    return credit


def _known(signal: Signal, logp: Any, floor: float) -> Signal:
    where = tagged(signal.episode, nth(2))
    weights = {"distilled": (where & (logp >= floor)).astype(np.float32)}
    return Signal(adopted(signal.episode, where, logp), signal.advantage, weights)


def feedback_modelled(gamma: Gamma = 0.1):
    """`two_turns`, and the critique under the prompt that shows question and answer only: row "imitation"
    (RLTF-FM, arXiv 2602.02482)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        said = [distilled(e, CRITIQUE, "imitation") for g in groups for e in g.episodes]
        return two_turns(groups, gamma) + [s for signals in said for s in signals]

    return credit
