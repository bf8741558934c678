"""What a stage may read besides its arguments: where the run stands, its models, and keyed randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from torch import Tensor

from etude import seeds
from etude.batch import pack, unpack
from etude.errors import UserError
from etude.models.outputs import Outputs
from etude.models.policy import Policy
from etude.train.step import Learner
from etude.types import Array, SamplingParams, Signal


@dataclass
class RunContext:
    """The context of a run in progress; implements `stages.Context`."""

    seed: int
    tasks: Any  # tasks.TaskSet; not imported: whatever draws may stand in
    learner: Learner
    sampling: SamplingParams
    auxiliary: dict[str, Any] = field(default_factory=dict)  # name -> Policy, or Learner where it is trained
    group_size: int = 8
    step: int = 0
    drawn: int = 0  # tasks drawn so far: the index of the next one
    progress: float = 0.0  # share of the budget spent, in [0, 1]

    @property
    def policy(self) -> Policy:
        return self.learner.policy

    def rng(self, purpose: str, *parts: object) -> np.random.Generator:
        """A stream of this run's, named by its purpose, the step and `parts`."""
        return seeds.generator(self.seed, purpose, self.step, *parts)

    def rows(
        self,
        signals: Sequence[Signal],
        read: Callable[[Outputs], Tensor],
        needs: Iterable[str] = (),
        policy: Any = None,
    ) -> list[Array]:
        """`read` of a policy's outputs on `signals`, without gradient: one f32[T] (or [T, K]) per signal."""
        if not signals:
            return []
        batch = pack(signals, self.sampling)
        return unpack(read((policy or self.policy).score(batch, frozenset(needs))), batch, signals)

    def with_logp(self, signals: Sequence[Signal], model: str) -> list[Signal]:
        """`extras[model]` = the auxiliary model's log-probability of every trained token."""
        held = self.auxiliary[model]
        logp = self.rows(signals, lambda out: out.logp, policy=getattr(held, "policy", held))
        return [replace(s, extras={**s.extras, model: row}) for s, row in zip(signals, logp, strict=True)]

    def completed(self, signals: Sequence[Signal], reads: Iterable[str]) -> list[Signal]:
        """Signals with the log-probabilities of all auxiliary models that the objective reads."""
        done = list(signals)
        for name in sorted(reads):
            done = self.with_logp(done, name)
        return done


class Ahead(RunContext):
    """The context of the step after the one that is trained, while both are under way."""

    def rows(
        self,
        signals: Sequence[Signal],
        read: Callable[[Outputs], Tensor],
        needs: Iterable[str] = (),
        policy: Any = None,
    ) -> list[Array]:
        trained = [self.policy, *(m.policy for m in self.auxiliary.values() if isinstance(m, Learner))]
        if policy is not None and not any(policy is model for model in trained):
            return super().rows(signals, read, needs, policy)
        raise UserError(
            "this recipe computes with the policy while it collects attempts, so that what it gets would depend on when it asks: "
            "with run.lag=1 the policy is trained meanwhile; use run.lag=0"
        )


def one_ahead(context: RunContext) -> RunContext:
    """The context as the next step will have it, but for what this step has yet to bring."""
    held = {f.name: getattr(context, f.name) for f in fields(context)}
    return Ahead(**{**held, "step": context.step + 1})
