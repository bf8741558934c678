"""The rows that a method declares as its tests, carried out through the stages as the recipe assembles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from etude.batch import Batch, pack
from etude.methods import build
from etude.models.outputs import Outputs
from etude.recipe import Credited, OffPolicy, Recipe
from etude.testing.examples import EXAMPLE_TASK, example_group
from etude.types import Array, Episode, Message, Signal, Span, Task


def off_policy(recipe: Recipe, row: OffPolicy) -> tuple[float, list[float]]:
    """The loss of the recipe's objective on the row's tokens, divided as a step divides it, and its gradient with
    respect to their log-probabilities."""
    _, stages = build(recipe, dict(row.settings))
    objective = stages["objective"]
    batch = _batch(row)
    own = batch.sampled
    logp = batch.behaviour.double()
    logp[own] += torch.tensor(row.ratio, dtype=torch.float64).log()
    logp.requires_grad_()
    heads = {n: _wide(v, own)[:, None] for n, v in row.heads.items()}
    out = Outputs(logp, None if row.entropy is None else _wide(row.entropy, own), heads)
    total = torch.zeros((), dtype=torch.float64)
    for term in objective.terms:
        if count := term.count(batch):
            total = total + term.coefficient * term.total(out, batch)[0] / count
    (gradient,) = torch.autograd.grad(total, logp, allow_unused=True)
    zero = torch.zeros_like(logp) if gradient is None else gradient
    return float(total.detach()), zero[own].tolist()


def credited(recipe: Recipe, row: Credited) -> list[list[float]]:
    """The advantage that the recipe's credit gives to each attempt of each group."""
    _, stages = build(recipe, dict(row.settings))
    groups = []
    for i, rewards in enumerate(row.rewards):
        task = replace(EXAMPLE_TASK, prompt=(Message("user", str(i)),))
        made = example_group(rewards)
        groups.append(replace(made, task=task, episodes=tuple(replace(e, task=task) for e in made.episodes)))
    signals = stages["credit"](groups, None)
    found: list[list[float]] = [[] for _ in groups]
    place = {g.task.key: i for i, g in enumerate(groups)}
    for signal in signals:
        found[place[signal.episode.task.key]].append(float(signal.advantage[0]))
    return found


def _batch(row: OffPolicy) -> Batch:
    lengths = row.lengths or [len(row.ratio)]
    if sum(lengths) != len(row.ratio):
        raise ValueError(f"'{row.says}': {sum(lengths)} tokens in episodes, {len(row.ratio)} ratios")
    signals, start = [], 0
    for number, n in enumerate(lengths):
        cut = slice(start, start + n)
        task = Task((Message("user", str(number)),), EXAMPLE_TASK.check)
        prompt = Span("user", np.zeros(1, np.int32))
        words = Span("assistant", np.ones(n, np.int32), True, -np.ones(n, np.float32))
        weights = row.weights or {"policy": [1.0] * len(row.ratio)}
        signals.append(
            Signal(
                Episode(task, (prompt, words)),
                _led(row.advantage[cut]),
                {name: _led(values[cut]) for name, values in weights.items()},
                {name: _led(values[cut]) for name, values in row.extras.items()},
            )
        )
        start += n
    return pack(signals)


def _led(values: Sequence[float]) -> Array:
    """A row with a 0 for the prompt's token before it."""
    return np.array([0.0, *values], np.float32)


def _wide(values: Sequence[float], own: torch.Tensor) -> torch.Tensor:
    row = torch.zeros(len(own), dtype=torch.float64)
    row[own] = torch.tensor(values, dtype=torch.float64)
    return row
