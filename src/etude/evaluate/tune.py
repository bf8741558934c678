"""The tuning budget of a comparison: the same for every arm, spent on learning rates, on tasks of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from etude.evaluate.schedule import Job, run_all
from etude.report.run import RunDirectory
from etude.train.config import Budget, Plan
from etude.train.setup import resolve

if TYPE_CHECKING:
    from etude.evaluate.compare import Contest

FACTORS = (1.0, 3.0, 1 / 3, 10.0, 0.1, 30.0)


def tuned(contest: Contest, say: Callable[[str], None]) -> dict[str, dict[str, str]]:
    """The learning rate of each arm: of `tune` candidates around its own, each trained for an equal part of half
    the budget, the one most accurate on the tuning problems. The other half is left for the runs that count."""
    share = Budget(contest.budget.amount * 0.5 / contest.tune, contest.budget.unit)
    chosen = {}
    for arm in contest.arms:
        base = Plan(
            arm.recipe, contest.model, contest.tasks, share, TUNING, {**contest.changes, **arm.changes}
        )
        rate = resolve(base)[2]["update"].lr
        jobs = []
        for factor in FACTORS[: contest.tune]:
            changes = {**base.changes, "update.lr": repr(rate * factor), "run.tuning": "true"}
            name = f"lr-{rate * factor:.1e}"
            jobs.append(
                Job(
                    f"{arm.name} {name}",
                    TUNING,
                    base.but(changes=changes).to_dict(),
                    contest.out / "tuning" / arm.name / name,
                )
            )
        failed = run_all(jobs, contest.parallel, say)
        scores = {
            job.plan["changes"]["update.lr"]: RunDirectory.open(job.path).evals()[-1]["mean"]
            for job in jobs
            if job.path not in failed
        }
        best = max(scores, key=lambda lr: (scores[lr], -float(lr))) if scores else repr(rate)
        say(
            f"{arm.name}: learning rate {float(best):.1e} of {json.dumps({k: round(v, 3) for k, v in scores.items()})}"
        )
        chosen[arm.name] = {"update.lr": best}
    return chosen


TUNING = 1_000_003  # the seed of tuning runs: none of the comparison's own
