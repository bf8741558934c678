"""The rows that a method declares as its tests, carried out through the stages as the recipe assembles them; and
which rows a recipe still lacks."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch

from etude.assembly import build
from etude.batch import Batch, pack
from etude.fixtures.examples import EXAMPLE_TASK, example_group
from etude.methods import catalogue
from etude.models.outputs import Outputs
from etude.recipe import ByHand, Credited, OffPolicy, Recipe, Reduction, Row
from etude.testing import toys
from etude.types import Array, Episode, Message, Signal, Span, Task


def check(recipe: Recipe, row: Row) -> None:
    """AssertionError with both numbers where the row does not hold."""
    if isinstance(row, ByHand):
        _same(row.compute(), row.equals, row.says)
    elif isinstance(row, OffPolicy):
        loss, gradient = off_policy(recipe, row)
        _same(loss, row.loss, f"{row.says}: the loss")
        _same(gradient, row.gradient, f"{row.says}: the gradient")
    elif isinstance(row, Credited):
        found = credited(recipe, row)
        lengths = [len(g) for g in found], [len(g) for g in row.advantages]
        assert lengths[0] == lengths[1], f"{row.says}: {lengths[0]} signals a group, by hand {lengths[1]}"
        for mine, wanted in zip(found, row.advantages, strict=True):
            _same(mine, wanted, f"{row.says}: the advantages")
    else:
        reduced(recipe, row)


def _same(found: Any, wanted: Any, what: str) -> None:
    a, b = np.asarray(found, float), np.asarray(wanted, float)
    assert a.shape == b.shape or not b.shape, f"{what} are {a.shape} numbers, by hand {b.shape}"
    assert np.allclose(a, b, rtol=1e-7, atol=1e-5, equal_nan=True), (
        f"{what}: computed {a.round(6).tolist()}, by hand {b.round(6).tolist()}"
    )


def reduced(recipe: Recipe, row: Reduction) -> None:
    """The gradient of a batch equals that of the other recipe, up to the scale, and its negative does not."""
    mine = toys.gradient(toys.toy_batch(recipe, row.settings))
    theirs = row.scale * toys.gradient(toys.toy_batch(row.to, row.to_settings))
    assert theirs.norm() > 0, f"{row.says}: the gradient of {row.to} is zero, which proves nothing"
    for sign, same in ((1, True), (-1, False)):
        apart = float((sign * mine - theirs).norm() / theirs.norm())
        assert (apart <= 1e-6) == same, (
            f"{row.says}: the gradient differs from that of {row.to} by {apart:.2g} of its norm"
        )


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
    gradient = None
    if total.requires_grad:  # a loss of heads alone says nothing about log-probabilities
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
                _after_prompt(row.advantage[cut]),
                {name: _after_prompt(values[cut]) for name, values in weights.items()},
                {name: _after_prompt(values[cut]) for name, values in row.extras.items()},
            )
        )
        start += n
    return pack(signals)


def _after_prompt(values: Sequence[float]) -> Array:
    """The values behind a 0 for the one token of the prompt."""
    return np.array([0.0, *values], np.float32)


def _wide(values: Sequence[float], own: torch.Tensor) -> torch.Tensor:
    row = torch.zeros(len(own), dtype=torch.float64)
    row[own] = torch.tensor(values, dtype=torch.float64)
    return row


# ---- which rows are missing --------------------------------------------------------------------------------

BY_STAGE = ("curriculum", "reward", "filter", "credit")


def missing(recipe: Recipe) -> list[str]:
    """One sentence for every stage of the recipe's own that no row goes through. A stage of its base, or one that the
    catalogue holds with the same settings and tests elsewhere, is tested there."""
    return [
        says
        for stage, says in _lacks(recipe).items()
        if not any(
            other.stages.get(stage) == recipe.stages[stage]
            and other.name != recipe.name
            and stage not in _lacks(other)
            for other in catalogue().values()
        )
    ]


def _lacks(recipe: Recipe) -> dict[str, str]:
    """{stage: what is missing}, by the recipe's own rows alone."""
    found = {}
    through = set().union(*(stages_run(recipe, row) for row in recipe.examples))
    # An objective that reads hidden states cannot be given outputs by an OffPolicy row; a ByHand row builds its own.
    by_hand = "objective" in through and "hidden" in build(recipe)[1]["objective"].needs
    if "objective" in recipe.stages and not by_hand and (lack := _off_policy_lacks(recipe)):
        found["objective"] = f"no OffPolicy row for its objective {lack}"
    for name in BY_STAGE:
        if name in recipe.stages and name not in through:
            credited = "a Credited row, or " if name == "credit" else ""
            found[name] = f"no row goes through its {name}: add {credited}a ByHand row that builds the stage"
    return found


def _off_policy_lacks(recipe: Recipe) -> str:
    """What no OffPolicy row has; the sign of the advantage matters where a term is proportional to it."""
    rows = [row for row in recipe.examples if isinstance(row, OffPolicy)]
    moved = [a for row in rows for r, a in zip(row.ratio, row.advantage, strict=True) if r != 1]
    by_advantage = any(term.proportional for term in build(recipe)[1]["objective"].terms)
    if not moved:
        return "with a ratio other than 1"
    if by_advantage and not any(a > 0 for a in moved):
        return "with a positive advantage where the ratio is not 1"
    if by_advantage and not any(a < 0 for a in moved):
        return "with a negative advantage where the ratio is not 1"
    return ""


def stages_run(recipe: Recipe, row: Row) -> set[str]:
    """The stages of the recipe's own that were made while the row was carried out."""
    if isinstance(row, Credited):
        return {"credit"}
    if not isinstance(row, ByHand):
        return set()
    codes = {code: name for name, part in recipe.stages.items() for code in _codes(part.factory)}
    seen: set[str] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in codes:
            seen.add(codes[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        row.compute()
    finally:
        sys.setprofile(before)
    return seen


def _codes(factory: Callable[..., Any]) -> list[CodeType]:
    """What runs when the stage is made; of a class that makes nothing of its own, what runs when it is used."""
    if not inspect.isclass(factory):
        return [inspect.unwrap(factory).__code__]
    functions = {name: f for name, f in vars(factory).items() if inspect.isfunction(f)}
    own = [functions["__init__"]] if "__init__" in functions else list(functions.values())
    return [f.__code__ for f in own]
