"""Whether learning one thing helps another: the cosine of their gradients at the output projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.train.batch import Batch, pack
from etude.types import Signal

TARGET = -1
MARK = "part"  # extras row: which part a token belongs to
CHUNK = 256  # rows whose probabilities over the vocabulary are held at once


def strength(batch: Batch) -> Tensor:
    """f32[N]: what the log-probability of each token is multiplied with: advantage x weight where there is an
    advantage, the weight alone where a token is imitated."""
    acts = batch.weight("policy") * batch.advantage
    return acts + sum((batch.weight(n) for n in batch.weights if n != "policy"), torch.zeros_like(acts))


@torch.no_grad()
def head_gradients(parts: Mapping[int, Sequence[Signal]], context: Any) -> Iterator[tuple[int, Tensor]]:
    """Of every part in turn, f32[V, D]: sum_t c_t (onehot(y_t) - softmax(W h_t)) h_t^T, the gradient of
    sum_t c_t log pi(y_t) in the output projection W, c = `strength`. One forward pass for all, no backward pass.
    One gradient at a time, since each is as large as the projection."""
    signals = [with_mark(s, k) for k, found in parts.items() for s in found]
    batch = pack(signals, context.sampling)
    out = context.policy.score(batch, frozenset({"hidden"}))
    assert out.hidden is not None
    weight = strength(batch) * batch.needed
    for k in parts:
        rows = ((batch.extras[MARK] == k) & (weight != 0)).nonzero()[:, 0]
        found = torch.zeros(())
        for part in rows.split(CHUNK):
            logits = out.logits(part).float() / context.sampling.temperature
            error = -torch.softmax(logits, -1)
            error[torch.arange(len(part)), batch.tokens[part]] += 1
            found = found + (error * weight[part][:, None]).T @ out.hidden[part].float()
        yield k, found


def with_mark(signal: Signal, k: int) -> Signal:
    row = np.full(len(signal.advantage), k, np.float32)
    return replace(signal, extras={**signal.extras, MARK: row})


def cosine(a: Tensor, b: Tensor) -> float:
    """<a, b> / (|a| |b|); 0 where one of them is 0."""
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size else 0.0


def alignments(
    target: Sequence[Signal], others: Mapping[int, Sequence[Signal]], most: int, context: Any
) -> dict[int, float]:
    """{k: cosine with the target}, of those that teach something; {} where the target teaches nothing. At most
    `most` signals of each are looked at, and as many of the target as of all others together; 0: all."""
    some = {k: chosen(found, most, k, context) for k, found in others.items()}
    some = {k: found for k, found in some.items() if found}
    aim = chosen(target, most * len(some), TARGET, context)
    if not some or not aim:
        return {}
    gradients = head_gradients({TARGET: aim, **some}, context)
    goal = next(gradients)[1]
    return {k: cosine(gradient, goal) for k, gradient in gradients}


def chosen(signals: Sequence[Signal], most: int, k: int, context: Any) -> list[Signal]:
    """Up to `most` of those that teach something, drawn alike."""
    alive = [s for s in signals if teaches(s)]
    if not most or len(alive) <= most:
        return alive
    picked = context.rng("align", k).choice(len(alive), most, replace=False)
    return [alive[i] for i in sorted(picked)]


def teaches(signal: Signal) -> bool:
    """Whether any token of it is praised, blamed or imitated."""
    return any(
        ((row != 0) & ((signal.advantage != 0) if name == "policy" else True)).any()
        for name, row in signal.weights.items()
    )
