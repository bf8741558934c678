"""Running a study: what it will cost, what is missing of its runs, and a verdict for every hypothesis.

found = etude.study("random_rewards", model="lab", budget="24-steps")
found.verdicts, found.report()
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from etude.claims.verdict import NO_TEST
from etude.compare.comparison import claim
from etude.compare.schedule import run_all
from etude.errors import UserError
from etude.files import read_json, write_atomically
from etude.machine import card
from etude.models.load import locate
from etude.printable import Say
from etude.report.page import write_report
from etude.studies import absolute, find
from etude.study.analysis import judged, means
from etude.study.declare import NEEDS, Arm, Study
from etude.study.work import MATERIAL, TRIAL, WORKER, Asked, facts_file, job_of, jobs_of, plan_of, read_facts
from etude.train.config import Budget, as_text
from etude.train.setup import resolve, task_set
from etude.types import Request

OF_A_MODEL = ("update.lr", "update.warmup")


def asked_of(study: Study, name: str, **given: Any) -> Asked:
    """The settings of a study: its own, and what was given in their place (None: not given). A learning rate is of a model:
    with another model than the study's own, that of the recipes counts."""
    d = study.defaults
    own: dict[str, Any] = {
        "model": d.model,
        "tasks": d.tasks,
        "budget": d.budget,
        "seeds": d.seeds,
        "problems": d.problems,
    }
    own |= {"samples": d.samples}
    own |= {k: v for k, v in given.items() if v is not None and k != "changes"}
    kept = {k: v for k, v in d.changes.items() if own["model"] == d.model or k not in OF_A_MODEL}
    changes = {**kept, **{k: as_text(v) for k, v in (given.get("changes") or {}).items()}}
    if "budget" in own:
        Budget.parse(str(own["budget"]))
    return Asked(absolute(name), changes=changes, **own)


def check(study: Study, asked: Asked, out: Path) -> None:
    """Builds every arm before anything runs. UserError in one sentence for what cannot be used."""
    trained = any(arm.training for arm in study.arms)
    if asked.seeds < 1 or asked.problems < 2 or asked.samples < 1:
        raise UserError("a study needs 1 seed, 2 problems and 1 sample at least")
    if trained and asked.seeds < 2:
        raise UserError(
            f"study {study.name} trains: with one seed, luck and method cannot be told apart; give 2"
        )
    if not study.defaults.model and (asked.model or asked.tasks != study.defaults.tasks):
        raise UserError(f"study {study.name} asks no model; leave --model and --tasks out")
    asked.settings()
    if asked.tasks:
        found = task_set(asked.tasks)
        for need in study.needs:
            words, has = NEEDS[need]
            if not has([found.draw(Request(), i, 0) for i in range(16)]):
                raise UserError(f"study {study.name} needs tasks with {words}; '{asked.tasks}' has none")
    if asked.model:
        locate(asked.model)
    for arm in study.arms:
        for training in arm.training:
            try:
                resolve(plan_of(asked, out, training, asked.model, 0))
            except UserError as error:
                raise UserError(f"study {study.name}, arm {arm.name}: {error}") from None


def said_cost(study: Study, asked: Asked) -> str:
    """What will be run, counted: updates or budgets, attempts. Seconds are measured by `estimate`."""
    trainings = [t for arm in study.arms for t in arm.training]
    budget = Budget.parse(asked.budget)
    lines = []
    if study.material:
        lines.append("material made once")
    if trainings:
        amount = asked.seeds * sum(
            max(1, round(t.share * budget.amount)) if budget.unit == "steps" else t.share * budget.amount
            for t in trainings
        )
        lines.append(f"{asked.seeds * len(trainings)} runs, {Budget(amount, budget.unit)} in all")
    lines.append(f"{asked.seeds * len(study.arms)} models measured")
    if asked.model:
        lines.append(
            f"on {asked.problems} problems of {asked.tasks}, {asked.samples} samples where attempts are drawn"
        )
    return f"study {study.name}: {', '.join(lines)}"


def estimate(name: str, asked: Asked, out: Path, say: Say) -> dict[str, Any]:
    """Seconds of one core, measured: two steps and eight problems of every arm, added up to what is missing of the whole."""
    study = find(name)
    trial = replace(asked, trial=True, seeds=1)
    place = out / "costs"
    lock = claim(out, contest(study, asked))
    try:
        _material(study, trial, place, say)
        failed = run_all(jobs_of(study, trial, place), 1, say, worker=WORKER)
    finally:
        lock.release()
    if failed:
        raise UserError("; ".join(f"{path.parent.name}: {why}" for path, why in failed.items()))
    rows = {}
    for arm in study.arms:
        left = sum(not facts_file(out, arm.name, s).exists() for s in range(asked.seeds))
        rows[arm.name] = {"runs": left, "seconds": seconds(arm, asked, read_facts(place, arm.name, 0))}
    return {"arms": rows, "minutes": sum(r["runs"] * r["seconds"] for r in rows.values()) / 60}


def seconds(arm: Arm, asked: Asked, trial: Mapping[str, Any]) -> float:
    """What one seed of an arm will take, from the facts of a trial of it."""
    start = trial["seconds"] - trial["trained_seconds"] - trial["measured_seconds"]
    measuring = trial["measured_seconds"] * max(1.0, asked.problems / TRIAL)
    if not arm.training:
        return float(start + measuring)
    budget = Budget.parse(asked.budget)
    spent = trial["trained_seconds"] if budget.unit == "seconds" else trial[budget.unit]
    amount = sum(t.share for t in arm.training) * budget.amount
    return float(start + measuring + amount * trial["trained_seconds"] / max(spent, 1e-9))


def contest(study: Study, asked: Asked) -> dict[str, Any]:
    """What tells this study from another in the same place."""
    return {"study": study.digest, **asdict(asked)}


def _material(study: Study, asked: Asked, out: Path, say: Say) -> None:
    if study.material is None:
        return
    job = job_of(asked, out, MATERIAL, 0)
    if failed := run_all([job], 1, say, worker=WORKER):
        raise UserError(f"study {study.name}: its material could not be made: {failed[job.path]}")


def run_study(name: str, asked: Asked, out: Path, parallel: int = 1, say: Say = print) -> dict[str, Any]:
    """Runs what is missing and returns the results, which stand in `out`/results.json as well. Started again it goes on.
    UserError for what cannot be used, before anything runs, and for another study in `out`."""
    study = find(name)
    check(study, asked, out)
    lock = claim(out, contest(study, asked))
    try:
        say(said_cost(study, asked))
        _material(study, asked, out, say)
        failed = run_all(jobs_of(study, asked, out), parallel, say, worker=WORKER)
        results = conclude(study, asked, out, [f"{p.parent.name}, {p.name}: {w}" for p, w in failed.items()])
        write_atomically(out / "results.json", json.dumps(results, indent=1))
        return results
    finally:
        lock.release()


def conclude(study: Study, asked: Asked, out: Path, failed: Sequence[str] = ()) -> dict[str, Any]:
    """The results of what has been run. An arm without all of its seeds is left out, and its hypotheses have no test."""
    facts: dict[str, list[dict[str, Any]]] = {}
    for arm in study.arms:
        whole = all(facts_file(out, arm.name, s).exists() for s in range(asked.seeds))
        facts[arm.name] = [read_facts(out, arm.name, s) for s in range(asked.seeds)] if whole else []
    hypotheses = judged(study, facts)
    every = [f for rows in facts.values() for f in rows]
    return {
        "kind": "study",
        "name": study.name,
        "question": study.question,
        "paper": {"title": study.paper.title, "url": study.paper.url, "year": study.paper.year},
        "asked": asdict(asked),
        "settings": study.digest,
        "hypotheses": hypotheses,
        "verdict": " ".join(sentence(h) + "." for h in hypotheses),
        "arms": [
            {
                "name": a.name,
                "says": a.says or " then ".join(t.recipe for t in a.training) or "the model as it is",
            }
            for a in study.arms
        ],
        "measures": [{"name": m.name, "unit": m.unit, "says": m.says} for m in study.measures],
        "means": means(study, facts),
        "flops": {
            n: float(np.mean([f.get("flops", 0.0) for f in rows])) for n, rows in facts.items() if rows
        },
        "seconds": float(sum(f["seconds"] for f in every)),
        "failed": list(failed),
        "departures": list(study.departures),
        "card": card(),
    }


def sentence(h: Mapping[str, Any]) -> str:
    """`gains: held, +4.2 [+1.0, +7.4] points`."""
    if h["label"] == NO_TEST:
        return f"{h['name']}: {NO_TEST} ({h['why']})"
    digits = 3 if max(abs(h["low"]), abs(h["high"])) < 1 else 1
    numbers = f"{h['effect']:+.{digits}f} [{h['low']:+.{digits}f}, {h['high']:+.{digits}f}] {h['unit']}"
    return f"{h['name']}: {h['label']}, {numbers}"


def screen(results: Mapping[str, Any]) -> str:
    """The results as one screen of text."""
    lines = [results["question"], ""]
    for h in results["hypotheses"]:
        lines += [f"{sentence(h)}", f"    {h['says']}"]
        lines += [f"    {'ok  ' if g['passed'] else 'shut'} {g['sentence']}" for g in h["requires"]]
    lines.append("")
    names = [m["name"] for m in results["measures"]]
    rows = [("arm", *names)]
    for arm in results["arms"]:
        mine = results["means"].get(arm["name"], {})
        rows.append((arm["name"], *(f"{mine[n]:.3g}" if n in mine else "" for n in names)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"failed: {f}" for f in results["failed"]]
    return "\n".join(lines)


@dataclass(frozen=True)
class FinishedStudy:
    """What a study left in `path`."""

    path: Path

    @property
    def results(self) -> dict[str, Any]:
        """Everything that `results.json` holds."""
        return dict(read_json(self.path / "results.json", "hypotheses"))

    @property
    def verdicts(self) -> dict[str, str]:
        """{hypothesis: held, not held, not resolved, ...}."""
        return {h["name"]: h["label"] for h in self.results["hypotheses"]}

    def report(self) -> Path:
        """Writes the page, one HTML file that opens offline, and returns where it lies."""
        return write_report(self.path)

    def __str__(self) -> str:
        return screen(self.results)

    def __repr__(self) -> str:
        return f"<study '{self.path}': {self.verdicts}>"


def study(
    name: str,
    model: str | None = None,
    tasks: str | None = None,
    budget: str | None = None,
    *,
    seeds: int | None = None,
    problems: int | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    parallel: int = 1,
    quiet: bool = False,
) -> FinishedStudy:
    """Runs a study (`etude studies` lists them; or a file, "./my_study.py") on your model and tasks, with its own settings
    where none are given. Called again with the same arguments it goes on where it stopped. Raises UserError for what
    cannot be used."""
    found = find(name)
    asked = asked_of(
        found, name, model=model, tasks=tasks, budget=budget, seeds=seeds, problems=problems, changes=settings
    )
    place = Path(out or f"runs/study-{found.name}")
    run_study(name, asked, place, parallel, (lambda text: None) if quiet else print)
    return FinishedStudy(place)
