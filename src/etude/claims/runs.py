"""The runs behind claims: shared where their plans are equal, kept as a few numbers each, taken up again after an
interruption."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etude.claims.measures import Asked, Measures
from etude.claims.settings import Claim
from etude.compare.schedule import Job, outcome
from etude.files import read_json, write_atomically
from etude.report.run import RunDirectory, is_run
from etude.train import checkpoint
from etude.train.config import Plan
from etude.train.reopen import resume
from etude.train.run import Run
from etude.train.session import run_session
from etude.train.setup import start

WORKER = "etude.claims.runs:work"
NEVER = "run.checkpoint_every"


@dataclass(frozen=True)
class ClaimJob(Job):
    """One run of one arm. It is done when its facts are there; the run itself is deleted then."""

    asked: Mapping[str, Any] | None = None
    facts: str = ""

    @property
    def done(self) -> bool:
        return Path(self.facts).exists()


def name_of(claim: Claim, arm: str) -> str:
    """Names a run by all that it is made of but its seed: claims with equal plans and questions share it."""
    plan = {**claim.plan(arm, 0).to_dict(), "seed": None, "asked": asdict(Asked.of(claim))}
    digest = hashlib.blake2b(json.dumps(plan, sort_keys=True).encode(), digest_size=6).hexdigest()
    (label,) = {"".join(c if c.isalnum() or c in "._+-" else "_" for c in Path(str(plan["recipe"])).name)}
    return f"{label}-{digest}"


def facts_file(out: Path, claim: Claim, arm: str, seed: int) -> Path:
    return out / "facts" / name_of(claim, arm) / f"{seed}.json"


def job_of(out: Path, claim: Claim, arm: str, seed: int) -> ClaimJob:
    name = name_of(claim, arm)
    return ClaimJob(
        arm,
        seed,
        claim.plan(arm, seed).to_dict(),
        out / "arms" / name / f"seed-{seed}",
        before=arm == claim.base and seed == 0,  # the untrained model is the same in all of them
        asked=asdict(Asked.of(claim)),
        facts=str(facts_file(out, claim, arm, seed)),
    )


def jobs_of(out: Path, claims: Sequence[Claim], more: bool = False) -> list[ClaimJob]:
    """The runs of `claims`, each once, in their order; bases first, since a base that does not learn settles its claim.
    `more`: with the seeds for what five do not resolve."""
    found: dict[str, ClaimJob] = {}
    for claim in claims:
        for arm in (claim.base, claim.arm):
            for seed in range(claim.more_seeds if more else claim.seeds):
                job = job_of(out, claim, arm, seed)
                found.setdefault(job.facts, job)
    return list(found.values())


# ---- in a worker -----------------------------------------------------------------------------------------------------


def work(job_file: str) -> int:
    """A child's whole life: does its job and notes why it could not."""
    told = json.loads(Path(job_file).read_text(encoding="utf-8"))
    job = ClaimJob(**{**told, "path": Path(told["path"])})
    return outcome(job, perform)


def perform(job: Job) -> None:
    """Starts or resumes the run, trains and examines it, keeps its facts and deletes the rest."""
    assert isinstance(job, ClaimJob)
    begin, used = time.perf_counter(), time.process_time()
    path = job.path
    begun = is_run(path) and bool(checkpoint.steps(path / "checkpoints"))
    run: Run = resume(path)[0] if begun else start(Plan.from_dict(dict(job.plan)), path, overwrite=True)
    run.beside = Measures(run, Asked(**(job.asked or {})))
    levels = {t.key: t.difficulty for t in run.holdout}
    run_session(run, fresh=not begun, force=True, keep_model=False, before=job.before)
    spent = {"wall": time.perf_counter() - begin, "cpu": time.process_time() - used}
    facts = {**reduced(RunDirectory.open(path), levels), **spent}
    place = Path(job.facts)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, json.dumps(facts))
    shutil.rmtree(path, ignore_errors=True)


MEASURED = (
    "length",
    "entropy",
    "steps_right",
    "twice",
    "elsewhere",
    "repeated",
    "predicted",
    "took",
    "samples",
)


def reduced(run: RunDirectory, levels: Mapping[str, float | None]) -> dict[str, Any]:
    """What is kept: every evaluation, and every number of every step."""
    evals, metrics = run.evals(), run.metrics()
    known = [v for v in levels.values() if v is not None]
    steps = [dict(flat(m)) for m in metrics]
    return {
        "curve": [
            {
                **{k: e[k] for k in ("step", "flops", "seconds", "mean", "per_problem")},
                **{k: e[k] for k in MEASURED if k in e},
            }
            for e in evals
        ],
        "hardest": [key for key, level in levels.items() if known and level == max(known)],
        "columns": {
            name: [s.get(name) for s in steps] for name in dict.fromkeys(n for s in steps for n in s)
        },
        "seconds": metrics[-1]["seconds"],
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def flat(metrics: Mapping[str, Any], above: str = "") -> list[tuple[str, float]]:
    """The numbers of a step; what a stage reports is called "stage.name"."""
    found = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{above}{name}.")
        elif isinstance(value, int | float):
            found.append((f"{above}{name}", round(float(value), 6) if abs(value) < 1e6 else float(value)))
    return found


def read_facts(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(file)
    return found
