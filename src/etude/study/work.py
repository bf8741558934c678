"""One arm with one seed, in a process of its own: trained, measured, kept as a few numbers, and deleted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude.compare.schedule import Job, outcome
from etude.evaluate.run import hold_out
from etude.files import read_json, write_atomically
from etude.models.policy import Policy
from etude.report.run import RunDirectory, is_run
from etude.studies import find
from etude.study.declare import Arm, Study, Training
from etude.study.subject import Making, Subject
from etude.tasks.isolate import Pool
from etude.train import checkpoint
from etude.train.config import Budget, Plan, as_text
from etude.train.measure import load_policy
from etude.train.put import put, worked_examples
from etude.train.reopen import resume
from etude.train.session import run_session
from etude.train.settings import RunSettings, run_settings
from etude.train.setup import start, task_set

WORKER = "etude.study.work:work"
TRIAL = 8  # problems of a trial
MATERIAL, UNTRAINED = "material", "untrained arms"  # jobs that are no arm's own
QUIET = {"run.evals": "0", "run.eval_samples": "1", "run.rescore_every": "0", "run.patience": "100000"}
"""Of every run: a study measures by itself; the run's held-out problems are kept out of its training."""


@dataclass(frozen=True)
class Asked:
    """A study with the settings that it is run with. `trial`: a few steps and problems, to learn what it costs."""

    study: str
    model: str
    tasks: str
    budget: str
    seeds: int
    problems: int
    samples: int
    changes: Mapping[str, str] = field(default_factory=dict)
    trial: bool = False

    def settings(self, recipe_defaults: Mapping[str, Any] | None = None) -> RunSettings:
        changes = {k.removeprefix("run."): v for k, v in self.changes.items() if k.startswith("run.")}
        return run_settings(recipe_defaults or {}, changes)


@dataclass(frozen=True)
class StudyJob(Job):
    """One arm with one seed, trained and measured; all arms that are not trained, with all seeds (`UNTRAINED`); or what all
    arms share (`MATERIAL`). Done when its facts are there."""

    asked: Mapping[str, Any] = field(default_factory=dict)
    out: str = ""

    @property
    def facts(self) -> list[tuple[str, int, Path]]:
        """(arm, seed, file) of all that it leaves."""
        which = [(self.arm, self.seed)]
        if self.arm == UNTRAINED:
            arms = [arm.name for arm in find(self.asked["study"]).arms if not arm.training]
            which = [(arm, seed) for arm in arms for seed in range(self.asked["seeds"])]
        return [(arm, seed, facts_file(Path(self.out), arm, seed)) for arm, seed in which]

    @property
    def done(self) -> bool:
        return all(file.exists() for _, _, file in self.facts)

    @property
    def stepped(self) -> bool:
        return any(self.path.glob("*/metrics.jsonl")) or (self.path / "measuring").exists()


def facts_file(out: Path, arm: str, seed: int) -> Path:
    return out / "facts" / arm / f"{seed}.json"


def job_of(asked: Asked, out: Path, arm: str, seed: int) -> StudyJob:
    return StudyJob(arm, seed, {}, out / "arms" / arm / f"seed-{seed}", asked=asdict(asked), out=str(out))


def jobs_of(study: Study, asked: Asked, out: Path) -> list[StudyJob]:
    """What is not trained first, then all arms seed by seed, so that an early end leaves whole seeds."""
    trained = [arm.name for arm in study.arms if arm.training]
    jobs = [job_of(asked, out, name, seed) for seed in range(asked.seeds) for name in trained]
    return jobs if len(trained) == len(study.arms) else [job_of(asked, out, UNTRAINED, 0), *jobs]


def plan_of(asked: Asked, out: Path, training: Training, model: str, seed: int) -> Plan:
    """The run of one training of an arm."""

    def placed(text: str) -> str:
        return str((out / MATERIAL / text[1:]).resolve()) if text.startswith("@") else text

    budget = Budget.parse(asked.budget)
    amount = budget.amount * training.share
    if budget.unit == "steps":
        amount = max(1, round(amount))
    if asked.trial:
        amount, budget = 2, Budget(2, "steps")
    own = {k: placed(as_text(v)) for k, v in training.changes.items()}
    held = {"run.eval_problems": str(0 if training.tasks.startswith("@") else asked.problems)}
    changes = {**QUIET, **held, **asked.changes, **own}
    tasks = placed(training.tasks) if training.tasks else asked.tasks
    rewards = tuple(placed(text) for text in training.rewards)
    return Plan(training.recipe, model, tasks, Budget(amount, budget.unit), seed, changes, rewards)


# ---- in a worker -----------------------------------------------------------------------------------------------------


def work(job_file: str) -> int:
    """A child's whole life."""
    told = json.loads(Path(job_file).read_text(encoding="utf-8"))
    return outcome(StudyJob(**{**told, "path": Path(told["path"])}), perform)


def perform(job: Job) -> None:
    """Trains what is to be trained, going on where it was cut off, measures, and writes the facts."""
    assert isinstance(job, StudyJob)
    asked, out = Asked(**job.asked), Path(job.out)
    study = find(asked.study)
    job.path.mkdir(parents=True, exist_ok=True)
    model, policy = "", None
    for name, seed, file in job.facts:
        if file.exists():
            continue
        begin = time.perf_counter()
        facts: dict[str, Any] = {}
        if name == MATERIAL:
            _material(study, asked, out)
        else:
            arm = study.arm(name)
            place, facts = _trained(job, arm, asked, out)
            if place and place != model:
                model, policy = place, _open(place, asked)
            facts |= _measured(job, study, arm, seed, asked, out, policy)
        facts["seconds"] = time.perf_counter() - begin
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(facts))
    shutil.rmtree(job.path, ignore_errors=True)


def _material(study: Study, asked: Asked, out: Path) -> None:
    place = out / MATERIAL
    shutil.rmtree(place, ignore_errors=True)  # what an interruption left half made
    place.mkdir(parents=True)
    assert study.material is not None
    open_model = lambda where: _open(where, asked)  # noqa: E731
    study.material(
        Making(place, asked.model, asked.tasks, asked.settings(), asked.problems, asked.samples, open_model)
    )


def _open(where: str, asked: Asked) -> Policy:
    settings = asked.settings()
    policy = load_policy(where, settings.precision, settings.backbone, settings.device)
    put([policy], settings, worked_examples(settings))
    return policy


def _trained(job: StudyJob, arm: Arm, asked: Asked, out: Path) -> tuple[str, dict[str, Any]]:
    """The arm's model, and what its training took."""
    model = _start(arm, asked, out)
    spent = {"flops": 0.0, "tokens": 0.0, "steps": 0.0, "trained_seconds": 0.0}
    for number, training in enumerate(arm.training):
        place = job.path / str(number)
        plan = plan_of(asked, out, training, model, job.seed)
        # A model that is there was saved at the end of its run.
        if not (place / "model").exists():
            begun = is_run(place) and bool(checkpoint.steps(place / "checkpoints"))
            run = resume(place)[0] if begun else start(plan, place, overwrite=True)
            run_session(run, fresh=not begun, force=True, keep_model=True, before=False)
        last = RunDirectory.open(place).metrics()[-1]
        spent["flops"] += last.get("flops", 0.0)
        spent["tokens"] += last.get("tokens/generated", 0.0) + last.get("tokens/trained", 0.0)
        spent["trained_seconds"] += last.get("seconds", 0.0)
        spent["steps"] += last.get("step", 0)
        model = str(place / "model")
    return model, spent


def _start(arm: Arm, asked: Asked, out: Path) -> str:
    if arm.start.startswith("@"):
        return str((out / MATERIAL / arm.start[1:]).resolve())
    return arm.start or asked.model


def _measured(
    job: StudyJob, study: Study, arm: Arm, seed: int, asked: Asked, out: Path, policy: Policy | None
) -> dict[str, Any]:
    (job.path / "measuring").touch()
    begin = time.perf_counter()
    tasks = task_set(asked.tasks) if asked.tasks else None
    problems = min(asked.problems, TRIAL) if asked.trial else asked.problems
    held = hold_out(tasks, problems) if tasks else []
    theirs = [part for task in held for part in (task.check, task.environment) if part]
    wanted = study.measured_of(arm)
    found: dict[str, Any] = {}
    with Pool(seconds=asked.settings().check_seconds, known=theirs) as pool:
        place, settings = out / MATERIAL, asked.settings()
        subject = Subject(arm, seed, policy, settings, tasks, problems, asked.samples, place, pool)
        for by in dict.fromkeys(m.by for m in wanted):
            found |= by(subject)
    names = {m.name for m in wanted}
    return {
        "measured": {n: v for n, v in found.items() if n in names},
        "measured_seconds": time.perf_counter() - begin,
    }


def read_facts(out: Path, arm: str, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = read_json(facts_file(out, arm, seed))
    return found
