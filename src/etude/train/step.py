"""One update of a policy from signals. The only place where a loss is divided.

Denominators are counted over the whole optimiser step; micro-batches only add. So the gradient does not depend
on how the step was cut, and a micro-batch that does not fit into memory may be cut again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from etude import seeds
from etude.batch import Batch, pack
from etude.errors import UserError
from etude.models.policy import Policy
from etude.objective.terms import Objective
from etude.types import Episode, SamplingParams, Signal
from etude.update import Update

UNIT = 2.0**-24  # half of float32's relative spacing: a smaller change is lost


@dataclass
class Learner:
    """A policy with its optimiser: AdamW, whose moments a recipe may keep apart by kind of step (`Update.moments`)."""

    policy: Policy
    update: Update
    name: str = "policy"
    seed: int = 0
    micro_tokens: int = 4096
    sampling: SamplingParams = field(default_factory=SamplingParams)

    def __post_init__(self) -> None:
        named = self.policy.parameters()
        heads = [p for n, p in named if n.startswith("heads.")]
        trunk = [p for n, p in named if not n.startswith("heads.")]
        self._trunk, self._heads = trunk, heads
        betas = (self.update.beta1, self.update.beta2)
        self._settings: dict[str, Any] = {"betas": betas, "weight_decay": self.update.weight_decay}
        self._parameters = trunk + heads
        self._optimisers: dict[str, torch.optim.AdamW] = {}

    def optimiser(self, moments: str = "") -> torch.optim.AdamW:
        """AdamW with these moments, which are 0 when first asked for."""
        if moments not in self._optimisers:
            groups = [{"params": self._trunk, "base_lr": self.update.lr}]
            if self._heads:
                groups.append({"params": self._heads, "base_lr": self.update.head_lr})
            self._optimisers[moments] = torch.optim.AdamW(
                groups, lr=self.update.lr, **self._settings, fused=True
            )
        return self._optimisers[moments]

    @torch.no_grad()
    def become(self, other: Learner) -> None:
        """Takes over the weights of another learner of the same model, with new moments: a round that begins anew."""
        for (_, mine), (_, theirs) in zip(self.policy.parameters(), other.policy.parameters(), strict=True):
            mine.copy_(theirs)
        self._optimisers.clear()
        self.policy.publish()

    def learn(
        self, objective: Objective, signals: Sequence[Signal], step: int, progress: float
    ) -> dict[str, float]:
        """All optimiser steps that `signals` are worth. Returns metrics, averaged over the last pass."""
        batch = pack(signals, self.sampling)
        fresh = all(self._wrote(s.episode) for s in signals)
        totals: dict[str, list[float]] = {}
        for part in range(self.update.passes):
            totals = {} if part else totals
            for number, piece in enumerate(self._minibatches(batch, objective.unit, step, part)):
                found = self._step(objective, piece, step, progress, first=fresh and part == number == 0)
                for name, (total, count) in found.items():
                    old = totals.setdefault(name, [0.0, 0.0])
                    old[0], old[1] = old[0] + total, old[1] + count
        means = {name: total / count for name, (total, count) in totals.items() if count}
        return {**means, "signal_tokens": alive_share(batch, objective)}

    def _wrote(self, episode: Episode) -> bool:
        """Whether the policy would write what was sampled of this episode just as it was sampled: of replayed or
        hinted data, a difference of log-probabilities says nothing about the engine."""
        ours = episode.policy_version == self.policy.version
        return not episode.sampled.any() or (ours and not any(s.hidden for s in episode.spans))

    def _minibatches(self, batch: Batch, unit: str, step: int, part: int) -> Iterator[Batch]:
        number = self.update.minibatches
        if number == 1 or unit == "batch" or not len(batch):
            yield batch
            return
        index = batch.group if unit == "group" else batch.episode
        units = int(index[-1]) + 1
        order = seeds.generator(self.seed, self.name, "minibatches", step, part).permutation(units)
        place = torch.from_numpy(order.argsort() * number // units)
        for k in range(number):
            keep = place[index] == k
            if keep.any():
                yield batch.take(keep)

    def accumulate(
        self, objective: Objective, batch: Batch, step: int = 0, first: bool = True
    ) -> dict[str, list[float]]:
        """Adds the gradient of the whole batch to the parameters, micro-batch by micro-batch. Returns metrics as
        [sum, count]; empty where no token carries signal."""
        counts = {term.name: term.count(batch) for term in objective.terms}
        found = self.backward(objective, batch, counts, step, first)
        for name, count in counts.items():
            if f"loss/{name}" in found:  # over all that was counted, as it is in the gradient
                found[f"loss/{name}"][1] = count
        return found

    def backward(
        self, objective: Objective, batch: Batch, counts: dict[str, float], step: int, first: bool
    ) -> dict[str, list[float]]:
        """The part of `accumulate` that is done piece by piece. `counts`: the terms' denominators over the whole batch."""
        self._ready()
        found: dict[str, list[float]] = {}
        for piece in self._pieces(objective, batch):
            self._backward(objective, piece, counts, step, found, first)
        return found

    def _ready(self) -> None:
        for parameter in self._parameters:
            # None and zero differ to AdamW, and which of the two it is would depend on what was run before.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _pieces(self, objective: Objective, batch: Batch) -> Iterator[Batch]:
        work = without_dead_weight(batch, objective)
        if len(work):
            yield from work.split(self.micro_tokens, objective.unit)

    def gradient(self, objective: Objective, batch: Batch) -> torch.Tensor:
        """f[P]: the gradient of a loss at the policy's weights, which are left without gradients."""
        self.forget()
        self.accumulate(objective, batch)
        found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self._in_order()]
        self.forget()
        return torch.cat([g.flatten() for g in found])

    def _in_order(self) -> list[torch.nn.Parameter]:
        return [p for _, p in self.policy.parameters()]

    def _step(
        self, objective: Objective, batch: Batch, step: int, progress: float, first: bool
    ) -> dict[str, list[float]]:
        found = self.accumulate(objective, batch, step, first)
        if not found:
            return {}
        rows = {term.weight for term in objective.terms if term.active(batch).any()}
        norm = self.apply(self.update.moments(rows), self.update.rate(step, progress))
        if not math.isfinite(norm):
            return {"skipped_updates": [1.0, 1.0]}
        self.policy.publish()
        return {**found, "grad_norm": [norm, 1.0]}

    def apply(self, moments: str, rate: float) -> float:
        """One step of AdamW with the gradients that were added up, clipped, at `rate` times the learning rates. Returns their
        norm before it was clipped; where that is not finite, nothing is changed. The gradients are cleared."""
        norm = self._clipped()
        if math.isfinite(norm):
            optimiser = self.optimiser(moments)
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * rate
            optimiser.step()
        self.forget()
        return norm

    def _clipped(self) -> float:
        return float(torch.nn.utils.clip_grad_norm_(self._parameters, self.update.max_norm or math.inf))

    def _backward(
        self,
        objective: Objective,
        piece: Batch,
        counts: dict[str, float],
        step: int,
        found: dict[str, list[float]],
        first: bool,
    ) -> None:
        """Adds the gradient of one micro-batch; one that does not fit into memory is cut in two."""
        try:
            sums = self._sums(objective, piece, counts, step, first)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            self.policy.grad_discard()
            halves = list(piece.split(max(1, len(piece) // 2), objective.unit))
            if len(halves) == 1:
                raise UserError(
                    f"one {objective.unit} of {len(piece)} tokens does not fit into memory; lower run.max_tokens"
                ) from error
            for half in halves:
                self._backward(objective, half, counts, step, found, first)
            return
        for name, (total, count) in sums.items():
            old = found.setdefault(name, [0.0, 0.0])
            old[0] += total
            old[1] += count

    def _sums(
        self, objective: Objective, piece: Batch, counts: dict[str, float], step: int, first: bool
    ) -> dict[str, tuple[float, float]]:
        inputs = objective.corrupt(piece) if objective.corrupt else None
        with objective.under(self.policy, piece) if objective.under else nullcontext():
            out = self.policy.outputs(piece, objective.needs, inputs)
        piece = piece.to(out.logp.device)
        loss = torch.zeros(())
        sums: dict[str, tuple[float, float]] = {}
        for term in objective.terms:
            total, metrics = term.total(out, piece)
            active = float(term.active(piece).sum())
            if not active:
                continue
            loss = loss + term.coefficient * total / counts[term.name]
            sums[f"loss/{term.name}"] = (float(total.detach()), 0.0)
            sums |= {name: (float(value), active) for name, value in metrics.items()}
        torch.autograd.backward(loss)
        self.policy.grad_accumulate()
        if out.replayed:  # the sampler's own numbers: equal to themselves, whatever the engines do
            return sums
        return sums | _readings(out.logp.detach(), piece, first)

    def idle(self, steps: int | None) -> str:
        """Why no update of a run of so many steps (None: not known) can change the weights, or all of the rate never
        arrives; empty where it does. AdamW moves a weight by about the rate."""
        update = self.update
        if update.lr <= 0:
            return "update.lr is 0, so no weight ever changes; raise it"
        size = self._size()
        if update.lr < size * UNIT:
            return f"update.lr={update.lr:g} is less than float32 can add to weights of about {size:.1g}; raise it"
        if steps is not None and update.warmup >= steps:
            return (
                f"update.warmup={update.warmup} is no shorter than the run ({steps} steps), so the learning rate never "
                "arrives; lower it, or train longer"
            )
        return ""

    def _size(self) -> float:
        """The root mean square of the weights."""
        count = max(1, sum(p.numel() for p in self._parameters))
        return math.sqrt(sum(float(p.detach().square().sum()) for p in self._parameters) / count)

    def forget(self) -> None:
        """Clears the gradients."""
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        optimisers = {moments: one.state_dict() for moments, one in self._optimisers.items()}
        return {"policy": self.policy.state_dict(), "optimisers": optimisers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self._optimisers.clear()
        for moments, held in state["optimisers"].items():
            optimiser = self.optimiser(moments)
            optimiser.load_state_dict(held)
            rates = (self.update.lr, self.update.head_lr)
            for group, rate in zip(
                optimiser.param_groups, rates, strict=False
            ):  # of the plan, should it have changed
                group |= {"base_lr": rate, **self._settings}


def without_dead_weight(batch: Batch, objective: Objective) -> Batch:
    """Drops the units on which every term is known to vanish: advantage 0 where losses are proportional to it,
    no weight elsewhere. The gradient is the same; the forward pass is not paid."""
    alive = torch.zeros(len(batch), dtype=torch.bool)
    for term in objective.terms:
        active = term.active(batch)
        alive |= active & (batch.advantage != 0) if term.proportional else active
    index = batch.group if objective.unit == "group" else batch.episode
    if objective.unit == "batch" or not len(batch):
        return batch
    keep = torch.zeros(int(index[-1]) + 1, dtype=torch.bool)
    keep[index[alive]] = True
    return batch.take(keep[index])


def alive_share(batch: Batch, objective: Objective) -> float:
    """The share of sampled or weighted tokens on which the objective acts."""
    needed = float(batch.needed.sum())
    return float(without_dead_weight(batch, objective).needed.sum()) / needed if needed else 0.0


def out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text


def _readings(logp: torch.Tensor, batch: Batch, first: bool) -> dict[str, tuple[float, float]]:
    """How far the policy is from the one that sampled the batch, whatever the objective. `first`: before any step on it."""
    known = batch.sampled & batch.needed
    count = float(known.sum())
    if not count:
        return {}
    delta = (batch.behaviour - logp)[known]
    readings = {"kl_sampler": (float((torch.expm1(-delta) + delta).sum()), count)}
    if first:  # the two differ by the engine alone
        readings["gap"] = (float(delta.abs().sum()), count)
    return readings
