"""How long claims will take: measured, by three steps of every arm whose runs are not there yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.claims.runs import WORKER, ClaimJob, jobs_of, read_facts
from etude.claims.settings import Claim
from etude.compare.schedule import run_all
from etude.train.config import Budget, Plan

STEPS, PROBLEMS = 3, 16  # of a measurement


@dataclass(frozen=True)
class Cost:
    """Of one run on a core of its own: seconds to start, seconds a step, seconds an attempt at an examination. Where the
    machine was shared when they were measured, they count by the share of a core that the run had."""

    start: float
    step: float
    attempt: float

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Cost:
        spent = facts["columns"]["seconds"]
        took = sum(p.get("took", 0.0) for p in facts["curve"])
        attempts = sum(n for p in facts["curve"] for _, _, n in p["per_problem"])
        step = (spent[-1] - spent[0]) / (len(spent) - 1) if len(spent) > 1 else spent[-1]
        parts = (facts["wall"] - spent[-1] - took, step, took / max(1, attempts))
        return cls(*(min(1.0, facts["cpu"] / facts["wall"]) * part for part in parts))

    def seconds(self, plan: Plan) -> float:
        """Of a whole run of `plan`, examinations included."""
        problems, samples, evals = (
            int(plan.changes.get(f"run.{name}", default))
            for name, default in (("eval_problems", 100), ("eval_samples", 4), ("evals", 0))
        )
        on_the_way = int(plan.changes.get("run.curve_samples", samples))
        attempts = problems * (samples + evals * on_the_way)
        return self.start + plan.budget.amount * self.step + attempts * self.attempt


@dataclass(frozen=True)
class Estimate:
    """`runs`: (arm, runs that are missing, seconds each). `failed`: {arm: why}."""

    runs: tuple[tuple[str, int, float], ...]
    workers: int
    failed: dict[str, str]

    @property
    def minutes(self) -> float:
        return sum(number * seconds for _, number, seconds in self.runs) / self.workers / 60

    def __str__(self) -> str:
        lines = [f"{number:3d} x {seconds:6.0f} s  {arm}" for arm, number, seconds in self.runs]
        lines += [f"cannot be run: {arm}: {why}" for arm, why in self.failed.items()]
        what = f"{sum(n for _, n, _ in self.runs)} runs are missing: about {self.minutes:.0f} minutes"
        return "\n".join(
            [*lines, f"{what}, {self.workers} at once, before more seeds for what is not resolved"]
        )


def estimate(claims: Sequence[Claim], out: Path, workers: int, say: Callable[[str], None]) -> Estimate:
    """Measures what is not known of the claims' arms, a few seconds each, and adds up."""
    missing: dict[Path, list[ClaimJob]] = {}
    for job in jobs_of(out, [c for c in claims if not c.untested]):
        if not job.done:
            missing.setdefault(Path(job.facts).parent, []).append(job)
    trials = {place: _trial(out, jobs[0]) for place, jobs in missing.items()}
    failed = run_all(list(trials.values()), workers, say, worker=WORKER)
    runs, broken = [], {}
    for place, jobs in missing.items():
        trial = trials[place]
        if trial.path in failed:
            broken[trial.arm] = failed[trial.path]
            continue
        cost = Cost.of(read_facts(Path(trial.facts)))
        runs.append((jobs[0].arm, len(jobs), cost.seconds(Plan.from_dict(dict(jobs[0].plan)))))
    return Estimate(tuple(runs), workers, broken)


def _trial(out: Path, job: ClaimJob) -> ClaimJob:
    plan = Plan.from_dict(dict(job.plan))
    few = {"run.evals": "0", "run.eval_problems": str(PROBLEMS)}
    short = plan.but(budget=Budget(STEPS, "steps"), changes={**plan.changes, **few})
    name = Path(job.facts).parent.name
    place = out / "costs" / f"{name}.json"
    return replace(
        job, plan=short.to_dict(), path=out / "costs" / name / "run", facts=str(place), before=False
    )
