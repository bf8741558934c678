"""Worked solutions that are imitated in part, with noise, or not as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.imitate import shown
from etude.settings import Setting
from etude.types import Array, Group, Signal, Span


def with_draws(samples: Annotated[int, Setting("tokens drawn per position; 0: exactly all", low=0)] = 256):
    """Demonstrations to imitate, with the uniforms f32[T, K] that decide which tokens are drawn there
    (OTR, arXiv 2509.26313)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = shown(groups)
        if not samples:
            return signals
        keys = [seeds.generator(context.seed, "otr", context.step, s.episode.task.key) for s in signals]
        draws = [
            k.random((len(s.advantage), samples), np.float32) for k, s in zip(keys, signals, strict=True)
        ]
        return [replace(s, extras={"draws": d}) for s, d in zip(signals, draws, strict=True)]

    return credit


def sentences(tokens: Array, ends: Sequence[bool | int]) -> list[Array]:
    """The tokens cut after each one that `ends` a sentence."""
    cuts = [i + 1 for i, end in enumerate(ends) if end and i + 1 < len(tokens)]
    return [part for part in np.split(tokens, cuts) if len(part)]


def looped(signal: Signal, before: Array, again: Array, length: int) -> Signal:
    """The prompt, the sentence `before`, then copies of `again` up to `length` tokens. Weights: `loop` on all
    copies but the first; `first` makes the first one's log-probabilities known. Extras: `period`."""
    *prompt, _ = signal.episode.spans
    copies = np.resize(again, max(length - len(before), 2 * len(again)))
    spans = (*prompt, Span("assistant", before, tag="prefix"), Span("assistant", copies, tag="loop"))
    start = sum(len(s) for s in spans) - len(copies)
    place = np.arange(start + len(copies)) - start
    later = place >= len(again)
    rows = {"loop": later, "first": (place >= 0) & ~later}
    return Signal(
        replace(signal.episode, spans=spans),
        np.zeros(len(place), np.float32),
        {name: row.astype(np.float32) for name, row in rows.items()},
        {"period": np.where(later, len(again), 0).astype(np.float32)},
    )


def loops(
    share: Annotated[float, Setting("share of steps that train on loops", low=0, high=1)] = 0.5,
    length: Annotated[int, Setting("length of a loop with its prefix", "tokens", low=2)] = 256,
    ends: Annotated[str, Setting("characters that end a sentence")] = ".!?\n",
):
    """At each step, by the toss of a coin, imitation of the demonstrations, or of each a loop of one of its sentences.
    A demonstration of fewer than three sentences is imitated in any case (DITTO, arXiv 2206.02369)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        toss, decode = context.rng("ditto").random() < share, context.policy.tokenizer.decode
        signals = []
        for signal in shown(groups):
            words = signal.episode.spans[-1].tokens[:-1]
            parts = sentences(words, [decode([t]).rstrip(" ")[-1:] in tuple(ends) for t in words])
            if toss and len(parts) >= 3:
                k = context.rng("ditto", signal.episode.task.key).integers(1, len(parts))
                signals.append(looped(signal, parts[k - 1], parts[k], length))
            else:
                signals.append(replace(signal, extras={"period": np.zeros_like(signal.advantage)}))
        return signals

    return credit


def ramp(progress: float, share: float, warmup: float) -> float:
    """Rises linearly from 0 to `share` over the first `warmup` of the run."""
    return share * min(1.0, progress / warmup) if warmup else share


def with_holes(
    share: Annotated[float, Setting("share of solution tokens that are replaced", low=0, high=1)] = 0.4,
    warmup: Annotated[float, Setting("share of the run over which it rises from 0", low=0, high=1)] = 0.66,
    random: Annotated[float, Setting("share replaced at random, not by the end token", low=0, high=1)] = 1.0,
):
    """Imitation of the demonstrations. Extras: `read`, the tokens that the model shall read, drawn anew at every
    step; what it shall say stays as it is (arXiv 2403.02178)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        tokenizer, p = context.policy.tokenizer, ramp(context.progress, share, warmup)
        signals = []
        for signal in shown(groups):
            tokens = signal.episode.tokens
            rng = context.rng("holes", signal.episode.task.key)
            hole = (rng.random(len(tokens)) < p) & (signal.weights["imitation"] > 0)
            noise = rng.integers(tokenizer.backend.get_vocab_size(), size=len(tokens))
            filling = np.where(rng.random(len(tokens)) < random, noise, tokenizer.stops[0])
            read = np.where(hole, filling, tokens).astype(np.float32)
            signals.append(replace(signal, extras={"read": read}))
        return signals

    return credit
