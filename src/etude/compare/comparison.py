"""Which method makes this model better at this task within this budget, and is the difference real?

Every arm gets the same budget in one currency, the same tasks, seeds and evaluation; the untrained model is always
an arm; a broken arm is named instead of being ranked. `results.json` holds all of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from etude import tasks as sources
from etude.compare.arms import UNTRAINED, Arm, differing
from etude.compare.gate import ArmGate
from etude.compare.paired import compare as compare_tables
from etude.compare.schedule import Job, run_all
from etude.compare.tune import tuned
from etude.errors import UserError
from etude.evaluate.intervals import clustered
from etude.evaluate.result import final
from etude.files import read_json, write_atomically
from etude.machine import card
from etude.models.load import locate
from etude.printable import Say
from etude.report.lock import NAME, Lock
from etude.report.run import RunDirectory
from etude.train.config import Budget, Plan, as_text
from etude.train.settings import EXAM, RunSettings, run_settings
from etude.train.setup import resolve


@dataclass(frozen=True)
class Comparison:
    """What is compared, under which conditions."""

    arms: Sequence[Arm]
    model: str
    tasks: str
    budget: Budget
    seeds: Sequence[int]
    out: Path
    changes: Mapping[str, str] = field(default_factory=dict)
    parallel: int = 1
    tune: int = 0
    gate: ArmGate = field(default_factory=ArmGate)
    target: float = 3.0  # points that the power estimate is about

    @property
    def exam(self) -> dict[str, str]:
        """How every arm is sampled when it is examined: by what is said for all arms, never by an arm's or a recipe's
        own settings, so that a temperature is not taken for a method."""
        shared = {k.removeprefix("run."): v for k, v in self.changes.items() if k.startswith("run.")}
        given = run_settings({}, shared).exam
        return {f"run.eval_{name}": as_text(getattr(given, name)) for name in EXAM}

    def to_dict(self) -> dict[str, Any]:
        return {
            "arms": [{"name": a.name, "recipe": a.recipe, "changes": dict(a.changes)} for a in self.arms],
            "model": self.model,
            "tasks": self.tasks,
            "budget": {"amount": self.budget.amount, "unit": self.budget.unit},
            "seeds": list(self.seeds),
            "changes": dict(self.changes),
            "tune": self.tune,
            "exam": self.exam,
        }


def run_comparison(comparison: Comparison, say: Say = print) -> dict[str, Any]:
    """Runs what is missing of the contest and returns its results, which stand in `out/results.json` as well.
    UserError for arms that cannot be built, before anything runs, and for another contest in `out`."""
    if len(comparison.seeds) < 2:
        raise UserError("a comparison needs at least 2 seeds: with one, luck and method cannot be told apart")
    for arm in comparison.arms:
        resolve(_plan(comparison, arm, comparison.seeds[0]))
    _same_exam(comparison)
    sources.load(comparison.tasks)  # refused now, while nothing is written yet
    locate(comparison.model)
    lock = claim(comparison.out, comparison.to_dict())
    try:
        return _held(comparison, say)
    finally:
        lock.release()


def _held(comparison: Comparison, say: Say) -> dict[str, Any]:
    tried = tuned(comparison, say) if comparison.tune else {}
    changes = {arm: {"update.lr": next(iter(rates))} for arm, rates in tried.items()}
    budget = Budget(comparison.budget.amount * (0.5 if comparison.tune else 1.0), comparison.budget.unit)
    jobs = [
        Job(
            arm.name,
            seed,
            _plan(comparison, arm, seed, budget, changes.get(arm.name)).to_dict(),
            comparison.out / "arms" / arm.name / f"seed-{seed}",
        )
        for seed in comparison.seeds
        for arm in comparison.arms
    ]
    failed = run_all(jobs, comparison.parallel, say)
    results = conclude(comparison, jobs, failed)
    if tried:  # paid for with half of every arm's budget
        results["tuning"] = tried
    write_atomically(comparison.out / "results.json", json.dumps(results, indent=1))
    return results


def _same_exam(comparison: Comparison) -> None:
    for arm in comparison.arms:
        if own := sorted(k for k in arm.changes if k.startswith("run.eval")):
            raise UserError(
                f"arm {arm.name} sets {own[0]}, but all arms are examined alike; give it to all of them with --set"
            )


def _plan(
    comparison: Comparison,
    arm: Arm,
    seed: int,
    budget: Budget | None = None,
    more: Mapping[str, str] | None = None,
) -> Plan:
    shared = {"run.evals": "3", **comparison.changes, **comparison.exam}
    known = {**shared, **arm.changes, **(more or {})}
    return Plan(arm.recipe, comparison.model, comparison.tasks, budget or comparison.budget, seed, known)


def claim(out: Path, contest: Mapping[str, Any]) -> Lock:
    """Notes what runs in `out`, so that starting again goes on and another contest is refused. Nobody else works there
    until the lock is released."""
    if out.exists() and not out.is_dir():
        raise UserError(f"'{out}' is a file; a comparison needs a directory of its own")
    lock = Lock(out, "comparison")
    try:
        _note(out, contest)
    except BaseException:
        lock.release(discard=True)
        raise
    return lock


def _note(out: Path, mine: Mapping[str, Any]) -> None:
    file = out / "contest.json"
    if file.exists():
        there = read_json(file)
        if not isinstance(there, dict):
            raise UserError(f"'{file}' is damaged; delete the comparison, or choose another --out")
        if there != mine:
            unlike = ", ".join(sorted(k for k in {*mine, *there} if there.get(k) != mine.get(k)))
            raise UserError(f"'{out}' holds another comparison (its {unlike} differ); choose another --out")
        return
    if {entry.name for entry in out.iterdir() if not entry.name.endswith(".tmp")} - {NAME}:
        raise UserError(f"'{out}' is not empty and not a comparison; choose another --out")
    write_atomically(file, json.dumps(mine))


def conclude(comparison: Comparison, jobs: Sequence[Job], failed: Mapping[Path, str]) -> dict[str, Any]:
    """The results of finished runs: curves, paired differences, validity, and a sentence."""
    runs = {arm.name: [j for j in jobs if j.arm == arm.name] for arm in comparison.arms}
    causes = {name: _cause(comparison, mine, failed) for name, mine in runs.items()}
    valid = [name for name, cause in causes.items() if cause is None]
    sound = {name: [RunDirectory.open(j.path) for j in runs[name]] for name in valid}
    done = [RunDirectory.open(j.path) for j in jobs if j.done]
    if not done:
        raise UserError(f"no run finished: {next(iter(failed.values()), 'none was started')}")
    start = next((e for r in done for e in r.evals() if e.get("rule") == "before"), None)
    if start is None:
        raise UserError(
            f"no run of '{comparison.out}' holds an evaluation of the untrained model; delete one of "
            f"'{comparison.out / 'arms'}/*/*/done.json' and start the comparison again"
        )
    tables = {UNTRAINED: _accuracies([start])}
    tables |= {name: _accuracies([r.evals()[-1] for r in mine]) for name, mine in sound.items()}
    base = valid[0] if valid else UNTRAINED
    tables = {base: tables[base], **tables}
    verdicts = (
        compare_tables(tables, base=base, fixed=(UNTRAINED,), target=comparison.target) if valid else None
    )
    said = _sentences(verdicts, causes, comparison.arms[0].name)
    settings = differing({name: _settings(comparison, runs[name]) for name in runs})
    arms = []
    for arm in sorted(
        comparison.arms, key=lambda a: a.name != base
    ):  # what differences are taken from stands first
        facts = _arm_facts(comparison, arm, runs[arm.name], causes[arm.name], verdicts)
        arms.append({**facts, "settings": settings[arm.name]})
    arms.insert(0 if base == UNTRAINED else len(arms), _untrained(start, verdicts))
    return {
        "kind": "comparison",
        "contest": comparison.to_dict(),
        "base": base,
        "arms": arms,
        "verdict": " ".join(said),
        "sentences": said,
        "problems": start["problems"],
        "samples": start["samples"],
        "seeds": list(comparison.seeds),
        "budget": str(comparison.budget),
        "exam": comparison.exam,
        "card": card(),
    }


def _cause(comparison: Comparison, jobs: Sequence[Job], failed: Mapping[Path, str]) -> str | None:
    for job in jobs:
        if job.path in failed or not job.done:
            return f"seed {job.seed}: {failed.get(job.path, 'it has not finished')}"
        if not any(final(e) for e in RunDirectory.open(job.path).evals()):
            return f"seed {job.seed}: its trained model was not evaluated"
        if cause := comparison.gate.cause(RunDirectory.open(job.path)):
            return f"seed {job.seed}: {cause}"
    return None


def _accuracies(evals: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """float[S, P]: accuracy per seed and problem, problems in the order of the first."""
    keys = [key for key, _, _ in evals[0]["per_problem"]]
    rows = []
    for e in evals:
        share = {key: correct / samples for key, correct, samples in e["per_problem"]}
        if share.keys() != set(keys):
            raise UserError("the runs of this comparison were evaluated on different problems")
        rows.append([share[key] for key in keys])
    return np.array(rows)


def _settings(comparison: Comparison, jobs: Sequence[Job]) -> dict[str, Any]:
    """Every resolved setting of an arm as {"stage.name": value}."""
    if not (jobs[0].path / "config.json").exists():
        return {}
    config = RunDirectory.open(jobs[0].path).config
    known = {**asdict(RunSettings()), **config["settings"]}  # an earlier version may know fewer
    flat = {f"run.{k}": v for k, v in known.items()}
    for name, stage in config["stages"].items():
        flat |= {f"{name}.{k}" if k != "factory" else name: v for k, v in stage.items()}
    return flat


def _untrained(start: Mapping[str, Any], verdicts: Any) -> dict[str, Any]:
    point = {"mean": start["mean"], "low": start["low"], "high": start["high"]}
    zero = {"fraction": 0.0, "flops": 0.0, "tokens": 0, "seconds": 0.0}
    return {
        "name": UNTRAINED,
        "recipe": UNTRAINED,
        "valid": True,
        "cause": None,
        "runs": [],
        "curve": [{**zero, **point}, {**zero, "fraction": 1.0, **point}],
        "final": point,
        "difference": _difference(UNTRAINED, verdicts),
        "best_probability": verdicts.best.get(UNTRAINED, 0.0) if verdicts else 1.0,
        "tokens": 0,
        "seconds": 0.0,
        "flops": 0.0,
        "alone": True,
        "settings": {},
    }


def _arm_facts(
    comparison: Comparison, arm: Arm, jobs: Sequence[Job], cause: str | None, verdicts: Any
) -> dict[str, Any]:
    done = [j for j in jobs if j.done]
    runs = [RunDirectory.open(j.path) for j in done]
    lasts = [r.metrics()[-1] for r in runs if r.metrics()]
    curve = _curve(runs)
    return {
        "name": arm.name,
        "recipe": arm.recipe,
        "valid": cause is None,
        "cause": cause,
        "runs": [os.path.relpath(j.path, comparison.out) for j in done],
        "curve": curve,
        "final": {k: curve[-1][k] for k in ("mean", "low", "high")} if curve else None,
        "difference": _difference(arm.name, verdicts) if cause is None else None,
        "best_probability": verdicts.best.get(arm.name, 0.0) if verdicts and cause is None else 0.0,
        "tokens": _average([m["tokens/generated"] + m["tokens/trained"] for m in lasts]),
        "seconds": _average([m["seconds"] for m in lasts]),
        "flops": _average([m["flops"] for m in lasts]),
        "alone": all(read_json(j.path / "done.json", "alone")["alone"] for j in done),
    }


def _curve(runs: Sequence[RunDirectory]) -> list[dict[str, float]]:
    """Accuracy at the marks that all of an arm's runs have, averaged over seeds; the band is over problems."""
    histories = [r.evals() for r in runs]
    marks = min((len(h) for h in histories), default=0)
    curve = []
    for i in range(marks):
        here = [h[i] if i < marks - 1 else h[-1] for h in histories]
        band = clustered(_accuracies(here).mean(0), here[0]["samples"] * len(here))
        curve.append(
            {
                "fraction": i / max(1, marks - 1),
                **{k: _average([e[k] for e in here]) for k in ("flops", "tokens", "seconds")},
                "mean": band.mean,
                "low": band.low,
                "high": band.high,
            }
        )
    return curve


def _difference(name: str, verdicts: Any) -> dict[str, Any] | None:
    for d in verdicts.differences if verdicts else ():
        if d.arm == name:
            return {
                "points": d.effect,
                "low": d.low,
                "high": d.high,
                "p": d.p,
                "p_holm": d.adjusted,
                "verdict": d.verdict,
            }
    return None


def _sentences(verdicts: Any, causes: Mapping[str, str | None], wanted: str) -> list[str]:
    said = [d.verdict for d in verdicts.differences] if verdicts else []
    said += [f"{name} is not ranked ({cause})" for name, cause in causes.items() if cause]
    if causes.get(wanted) and verdicts:
        said.append(f"the first arm is not valid, so differences are against {verdicts.base}")
    return [s.rstrip(".") + "." for s in said or ["no arm is valid"]]


def _average(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
