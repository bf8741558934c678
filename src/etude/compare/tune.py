"""The tuning budget of a comparison: the same for every arm, spent on learning rates, on tasks of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from etude.compare.schedule import Job, run_all
from etude.errors import UserError
from etude.report.run import RunDirectory
from etude.train.config import Budget, Plan
from etude.train.setup import resolve

if TYPE_CHECKING:
    from etude.compare.comparison import Comparison

FACTORS = (1.0, 3.0, 1 / 3, 10.0, 0.1, 30.0)


def tuned(comparison: Comparison, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """The learning rate of each arm: of `tune` candidates around its own, each trained for an equal part of half
    the budget. The other half is left for the runs that count. Returns {arm: {rate: accuracy on the tuning problems}},
    the best first (of equals the smallest)."""
    share = Budget(comparison.budget.amount * 0.5 / comparison.tune, comparison.budget.unit)
    found = {}
    for arm in comparison.arms:
        base = Plan(
            arm.recipe,
            comparison.model,
            comparison.tasks,
            share,
            TUNING,
            {**comparison.changes, **comparison.exam, **arm.changes},
        )
        rate = resolve(base)[2]["update"].lr
        jobs = []
        for factor in FACTORS[: comparison.tune]:
            changes = {**base.changes, "update.lr": repr(rate * factor), "run.tuning": "true"}
            name = f"lr-{rate * factor:.1e}"
            jobs.append(
                Job(
                    f"{arm.name} {name}",
                    TUNING,
                    base.but(changes=changes).to_dict(),
                    comparison.out / "tuning" / arm.name / name,
                    before=False,
                )
            )
        failed = run_all(jobs, comparison.parallel, say)
        scores = {
            job.plan["changes"]["update.lr"]: RunDirectory.open(job.path).evals()[-1]["mean"]
            for job in jobs
            if job.path not in failed
        }
        if not scores:
            raise UserError(f"no learning rate could be tried for {arm.name}: {next(iter(failed.values()))}")
        order = sorted(scores, key=lambda lr: (-scores[lr], float(lr)))
        found[arm.name] = {lr: scores[lr] for lr in order}
        shown = ", ".join(f"{float(lr):.1e}: {100 * scores[lr]:.1f} %" for lr in order)
        say(f"{arm.name}: learning rate {float(order[0]):.1e} ({shown})")
    return found


TUNING = 1_000_003  # the seed of tuning runs: none of the comparison's own
