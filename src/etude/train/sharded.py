"""The update of a model that several ranks share. All ranks have the whole batch, so denominators are counted as ever; each
rank runs its share of the pieces, and the gradients are added up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from etude.batch import Batch
from etude.models.sharded import copy_into, whole
from etude.objective.terms import Objective
from etude.scale.mirrored import Mirrored, dealt, idle
from etude.scale.ranks import Held, Ranks
from etude.train.step import Learner
from etude.types import SamplingParams
from etude.update import Update

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, one of each per parameter


@dataclass
class Sharer(Learner):
    """What each rank does of an update."""

    held: Held | None = None

    def backward(
        self, objective: Objective, batch: Batch, counts: dict[str, float], step: int, first: bool
    ) -> dict[str, list[float]]:
        assert self.held is not None
        self._ready()
        found: dict[str, list[float]] = {}
        pieces = list(self._pieces(objective, batch))
        hands = dealt(pieces, self.held.count)
        for turn in range(max(map(len, hands))):
            if turn < len(hands[self.held.rank]):
                piece = pieces[hands[self.held.rank][turn]]
                for name, (total, count) in self._sums(objective, piece, counts, step, first).items():
                    old = found.setdefault(name, [0.0, 0.0])
                    old[0], old[1] = old[0] + total, old[1] + count
            else:
                self._nothing(objective)
        return found

    def _nothing(self, objective: Objective) -> None:
        """Takes part in the others' backward pass."""
        trained = self.policy.meter.trained
        out = self.policy.outputs(idle(), objective.needs)
        torch.autograd.backward(torch.where(torch.zeros((), dtype=torch.bool), out.logp.sum().cpu(), 0.0))
        self.policy.meter.trained = trained

    def _clipped(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.update.max_norm or math.inf)
        return float(whole(norm))

    def _size(self) -> float:
        count = max(1, sum(p.numel() for p in self._parameters))
        return math.sqrt(sum(float(whole(p.detach().square().sum())) for p in self._parameters) / count)

    def gradients(self, keep: bool) -> torch.Tensor | None:
        """f[P], the gradient as it stands, on the CPU, where `keep`. All ranks call this."""
        found = []
        for parameter in self._in_order():
            assert parameter.grad is not None
            full = whole(parameter.grad)
            if keep:
                found.append(full.flatten().cpu())
        return torch.cat(found) if keep else None

    def moments(self, keep: bool) -> dict[str, Any]:
        """The optimisers' states, as those of a learner that has its policy alone, where `keep`. All ranks call this."""
        found = {}
        for moments, optimiser in self._optimisers.items():
            state = optimiser.state_dict()
            held = {
                number: {n: whole(v).cpu() if isinstance(v, torch.Tensor) else v for n, v in one.items()}
                for number, one in state["state"].items()
            }
            found[moments] = {**state, "state": held}
        return found if keep else {}

    def take_moments(self, given: Mapping[str, Any]) -> None:
        """The other way round: every rank is given all and keeps its part."""
        self._optimisers.clear()
        for moments, state in given.items():
            optimiser = self.optimiser(moments)
            for number, one in state["state"].items():
                parameter = self._parameters[number]
                for name, value in one.items():
                    optimiser.state[parameter][name] = part_of(parameter, name, value)


def part_of(parameter: torch.Tensor, name: str, value: torch.Tensor) -> torch.Tensor:
    if name not in MOMENTS:
        return value.clone()
    made = torch.zeros_like(parameter)
    copy_into(made, value)
    return made.detach()


@dataclass
class ShardedLearner(Learner):
    """A learner whose policy is on several ranks, as the driver sees it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = (self.name, self.update, self.seed, self.micro_tokens, self.sampling)
        self.ranks.everywhere(begin_to_learn, self._policy_name, *given)

    @property
    def ranks(self) -> Ranks:
        backbone = self.policy.backbone
        assert isinstance(backbone, Mirrored)
        return backbone.ranks

    @property
    def _policy_name(self) -> str:
        backbone = self.policy.backbone
        assert isinstance(backbone, Mirrored)
        return backbone.name

    def backward(
        self, objective: Objective, batch: Batch, counts: dict[str, float], step: int, first: bool
    ) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        given = (self.name, objective, batch, counts, step, first)
        for metrics, rows in self.ranks.everywhere(take_a_share, *given):
            self.policy.meter.trained += rows
            for name, (total, count) in metrics.items():
                old = found.setdefault(name, [0.0, 0.0])
                old[0], old[1] = old[0] + total, old[1] + count
        return found

    def apply(self, moments: str, rate: float) -> float:
        return float(self.ranks.everywhere(move_the_weights, self.name, moments, rate)[0])

    def gradient(self, objective: Objective, batch: Batch) -> torch.Tensor:
        self.forget()
        self.accumulate(objective, batch)
        found: torch.Tensor = self.ranks.everywhere(add_up_the_gradient, self.name)[0]
        self.forget()
        return found

    def _size(self) -> float:
        return float(self.ranks.everywhere(measure_the_weights, self.name)[0])

    def forget(self) -> None:
        self.ranks.everywhere(forget_the_gradient, self.name)

    def state_dict(self) -> dict[str, Any]:
        """All of it in this process, as a learner alone has it."""
        optimisers = self.ranks.everywhere(gather_the_moments, self.name)[0]
        return {"policy": self.policy.state_dict(), "optimisers": optimisers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.ranks.everywhere(take_the_moments, self.name, state["optimisers"])


# ---- what every rank does ----------------------------------------------------------------------------


def begin_to_learn(
    held: Held,
    policy: str,
    name: str,
    update: Update,
    seed: int,
    micro_tokens: int,
    sampling: SamplingParams,
) -> None:
    held.learners[name] = Sharer(held.policies[policy], update, name, seed, micro_tokens, sampling, held)


def take_a_share(
    held: Held,
    name: str,
    objective: Objective,
    batch: Batch,
    counts: dict[str, float],
    step: int,
    first: bool,
) -> tuple[dict[str, list[float]], int]:
    learner: Sharer = held.learners[name]
    before = learner.policy.meter.trained
    found = learner.backward(objective, batch, counts, step, first)
    return found, learner.policy.meter.trained - before


def move_the_weights(held: Held, name: str, moments: str, rate: float) -> float:
    learner: Sharer = held.learners[name]
    norm = learner.apply(moments, rate)
    learner.policy.publish()
    return norm


def add_up_the_gradient(held: Held, name: str) -> torch.Tensor | None:
    found: torch.Tensor | None = held.learners[name].gradients(held.first)
    return found


def measure_the_weights(held: Held, name: str) -> float:
    return float(held.learners[name]._size())


def forget_the_gradient(held: Held, name: str) -> None:
    held.learners[name].forget()


def gather_the_moments(held: Held, name: str) -> dict[str, Any]:
    found: dict[str, Any] = held.learners[name].moments(held.first)
    return found


def take_the_moments(held: Held, name: str, state: Mapping[str, Any]) -> None:
    held.learners[name].take_moments(state)
