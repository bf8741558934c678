"""What is measured of a policy beside its accuracy, at every evaluation of a claim's run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from etude.assembly import build
from etude.claims import running_text
from etude.claims.settings import Claim
from etude.compare.arms import parse_arms
from etude.evaluate.run import EVAL_SAMPLING, attempt, hold_out
from etude.evaluate.transitions import outcomes
from etude.lab.tasks import steps_right
from etude.methods import find
from etude.models.policy import Policy
from etude.rollout.conversation import Generator
from etude.train.run import Run
from etude.train.setup import task_set
from etude.types import Group, Task


@dataclass(frozen=True)
class Asked:
    """What a claim wants to know beyond a single attempt at the held-out problems; it belongs to a run's name."""

    exam: str = ""  # arm whose rollout makes several attempts in an episode
    elsewhere: str = ""  # other tasks
    text: bool = False  # running text: repetition and prediction

    @classmethod
    def of(cls, claim: Claim) -> Asked:
        metrics = {claim.metric, claim.guard}
        return cls(
            (claim.exam or claim.arm) if metrics & {"last", "gain"} else "",
            claim.elsewhere if "elsewhere" in metrics else "",
            bool(metrics & {"repeated", "predicted"}),
        )


@dataclass(eq=False)
class Measures:
    """Called by `Run` at every evaluation, whose attempts per problem are those of the further examinations too."""

    run: Run
    asked: Asked

    def __call__(self, policy: Policy, generator: Generator, groups: Sequence[Group]) -> Mapping[str, Any]:
        written = [(g.task, e) for g in groups for e in g.episodes if e.failure is None]
        logp = np.concatenate([e.logp[e.sampled] for _, e in written])
        steps = [
            found
            for task, e in written
            if e.correct
            and (found := steps_right(task, self._said(e.spans[-1].tokens, generator))) is not None
        ]
        return {
            "entropy": -float(logp.mean()),  # nats a sampled token: an unbiased reading
            "steps_right": float(np.mean(steps)) if steps else None,
            **self._twice(generator, len(groups[0].episodes)),
            **self._elsewhere(generator, len(groups[0].episodes)),
            **(running_text.measured(policy, self.run.settings, self.run.holdout) if self.asked.text else {}),
        }

    def _said(self, tokens: Any, generator: Generator) -> str:
        return generator.renderer.decode(tokens)

    def _twice(self, generator: Generator, samples: int) -> dict[str, Any]:
        """[problem, right at the first attempt, right at the last, attempts], as the method of the claim is examined
        (`Recipe.exam`), in both arms alike."""
        if not self.asked.exam:
            return {}
        groups = self._attempts(generator, self.run.holdout, samples, self._rollout)
        rows = []
        for g in groups:
            played = [e for e in g.episodes if e.verdicts and e.failure is None]
            if played:
                rows.append(
                    [g.task.key, *map(int, np.sum([outcomes(e) for e in played], axis=0)), len(played)]
                )
        return {"twice": rows}

    def _elsewhere(self, generator: Generator, samples: int) -> dict[str, Any]:
        if not self.asked.elsewhere:
            return {}
        groups = self._attempts(generator, self._other, samples)
        rows = [
            [g.task.key, sum(e.correct for e in g.episodes), len(g.episodes)] for g in groups if g.episodes
        ]
        return {"elsewhere": rows}

    def _attempts(
        self, generator: Generator, tasks: Sequence[Task], samples: int, rollout: Any = None
    ) -> Sequence[Group]:
        return self.run.loop.run(
            attempt(generator, self.run.check_runner, tasks, samples, EVAL_SAMPLING, rollout)
        )

    @cached_property
    def _rollout(self) -> Any:
        (arm,) = parse_arms([self.asked.exam])
        own = {k: v for k, v in arm.changes.items() if not k.startswith("run.")}
        recipe = find(arm.recipe)
        return build(recipe, {**own, **recipe.all_exam})[1]["rollout"]

    @cached_property
    def _other(self) -> Sequence[Task]:
        return hold_out(task_set(self.asked.elsewhere), self.run.settings.eval_problems)
