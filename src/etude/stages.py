"""The contracts of the stages: what a method replaces, as types. A stage is a function, or an object that is called.

    curriculum -> rollout -> reward -> filter -> credit -> objective -> update

A stage may also have `observe(groups, signals, context)` (what a step brought), `prepare(tasks)` (the task set, before
anything is sampled; may refuse it), `report() -> {name: number}` (metrics), `state_dict()` / `load_state_dict(state)`
(checkpointed), and `reads` (auxiliary models that must be there).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from etude.types import Array, Episode, Group, Request, SamplingParams, Signal, Task

if TYPE_CHECKING:  # for annotations alone: these rooms are built on the contracts
    from etude.models.outputs import Outputs
    from etude.models.policy import Policy
    from etude.rollout.conversation import Conversation
    from etude.rollout.group_rollout import GroupRollout
    from etude.tasks import TaskSet
    from etude.train.step import Learner


class Context(Protocol):
    """Where the run stands, its models, and keyed randomness (`train.context.RunContext`)."""

    seed: int
    tasks: TaskSet
    learner: Learner
    sampling: SamplingParams
    auxiliary: dict[str, Any]  # name -> Policy, or Learner where it is trained
    group_size: int
    step: int
    drawn: int  # tasks drawn so far: the index of the next one
    progress: float  # share of the budget spent, in [0, 1]

    @property
    def policy(self) -> Policy: ...

    def rng(self, purpose: str, *parts: object) -> np.random.Generator:
        """A stream of this run's, named by its purpose, the step and `parts`."""
        ...

    def rows(
        self,
        signals: Sequence[Signal],
        read: Callable[[Outputs], Tensor],
        needs: Iterable[str] = (),
        policy: Policy | None = None,
    ) -> list[Array]:
        """`read` of a policy's outputs on `signals`, without gradient: one f32[T] (or [T, K]) per signal."""
        ...

    def with_logp(self, signals: Sequence[Signal], model: str) -> list[Signal]:
        """`extras[model]` = the auxiliary model's log-probability of every trained token."""
        ...


class Curriculum(Protocol):
    def next(self, n: int, context: Context) -> list[Request]: ...
    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None: ...
    def report(self) -> Mapping[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Rollout = Callable[[Task, "Conversation"], Awaitable[Episode | Sequence[Episode]]]
"""How one episode is produced."""

GroupRolloutStage = Callable[["GroupRollout"], Awaitable[list[Episode]]]
"""How the episodes of one task are collected."""

Reward = Callable[[Episode], Mapping[str, float] | Awaitable[Mapping[str, float]]]
"""What an episode is worth; credit reads the score "reward"."""


class Filter(Protocol):
    """Which groups are trained on. Where it refuses some, the loop draws others; none where it has `redraws` = False, that
    is, where it chooses among what was drawn."""

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Group]: ...


class Credit(Protocol):
    """What each token is to be blamed or praised for."""

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]: ...
