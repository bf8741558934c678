"""Examining the policy of a run on its held-out problems, without that counting as a part of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etude.evaluate.result import EvalResult, from_groups
from etude.evaluate.run import EVAL_SAMPLING, abstaining, answers, attempt, card_of, strictly
from etude.models.policy import Policy
from etude.rollout.conversation import Generator
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Sampler
from etude.train.guards import check_errors
from etude.types import Group, Task

if TYPE_CHECKING:
    from etude.train.run import Run


def examined(
    run: Run, policy: Policy, generator: Generator, rule: str, spent: Mapping[str, Any]
) -> EvalResult:
    """Accuracy of a policy on the held-out problems, recorded."""
    begin = time.perf_counter()
    with run.uncharged():
        few = run.settings.curve_samples if rule == "during" else None
        groups = attempted(run, generator, run.holdout, few)
        strict = run.loop.run(strictly(groups, generator.renderer, run.pool))
        more = run.beside(policy, replace(generator, params=run.settings.exam), groups) if run.beside else {}
    card = card_of(run.plan.tasks, run.plan.model, policy, run.settings.exam, EVAL_SAMPLING, rule)
    renderer, own = generator.renderer, run.settings
    result = from_groups(
        groups,
        replace(card, **spent),
        answer=answers(renderer),
        abstaining=abstaining(own.abstain, own.confidence, renderer),
    )
    run.directory.write_eval(
        {**result.to_dict(), "strict": strict, "took": time.perf_counter() - begin, **more}
    )
    return result


def examined_start(run: Run) -> EvalResult:
    """The evaluation "before" of a run that has gone on: the weights that it began with are loaded again."""
    own = run.settings
    policy = Policy.load(run.origin, precision=own.precision, backbone=own.backbone, device=own.device)
    sampler: Sampler = sampler_for(policy, own.rows)
    if run.place is not None and run.place.samples:
        sampler = run.loop.run(run.place.sampler(policy, own.rows, own.context))
    generator = replace(run.generator, sampler=sampler, renderer=run.generator.renderer)
    return examined(run, policy, generator, "before", {"step": 0})


def attempted(
    run: Run, generator: Generator, problems: Sequence[Task], samples: int | None = None
) -> list[Group]:
    """Problems attempted as in an evaluation, `samples` times each (default: run.eval_samples). Refused where too many
    attempts fail with an error."""
    examining = replace(generator, params=run.settings.exam)
    number = samples or run.settings.eval_samples
    told = run.on_examined
    groups = run.loop.run(attempt(examining, run.check_runner, problems, number, EVAL_SAMPLING, told=told))
    check_errors(run, groups)
    return groups
