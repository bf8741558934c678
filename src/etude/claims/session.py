"""Running claims: what is missing of their runs, then verdicts, as soon as a claim's runs are there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.claims import AXES
from etude.claims.bed import abilities
from etude.claims.judge import judged, refused, unresolved
from etude.claims.runs import WORKER, ClaimJob, facts_file, jobs_of, read_facts
from etude.claims.settings import Claim
from etude.compare.schedule import Job, run_all
from etude.errors import UserError
from etude.files import read_json, write_atomically
from etude.machine import card
from etude.printable import Say
from etude.report.lock import Lock
from etude.train.setup import resolve

UNTESTED, FAILED = "untested", "failed"
MORE = "more"  # of a result that is not the last: how many seeds it will be judged by in the end
Results = dict[str, dict[str, dict[str, Any]]]  # {recipe: {bed: result}}


@dataclass(frozen=True)
class Session:
    """Claims to be run in `out`. `record`: where results are kept (default: `out`/results.json). `trial`: updates in the
    place of the settings'; nothing is recorded then but in `out`."""

    claims: Sequence[Claim]
    out: Path
    record: Path | None = None
    parallel: int = 0  # runs at once, one thread each; 0: one for each core
    trial: int = 0
    command: str = "etude claims"

    def __post_init__(self) -> None:
        if not self.claims:
            raise UserError("there is no claim to run")
        if self.trial:
            shorter = [replace(c, updates=self.trial) if not c.untested else c for c in self.claims]
            object.__setattr__(self, "claims", shorter)

    @property
    def results(self) -> Path:
        return self.record if self.record and not self.trial else self.out / "results.json"

    @property
    def workers(self) -> int:
        return self.parallel or os.cpu_count() or 1


def check(claims: Sequence[Claim]) -> None:
    """Builds every arm. UserError for the first that cannot be."""
    for claim in claims:
        for arm in (claim.arm, claim.base) if not claim.untested else ():
            try:
                resolve(claim.plan(arm, 0))
            except UserError as error:
                raise UserError(f"claim {claim.on}.{claim.recipe}, arm {arm}: {error}") from None


def run_claims(session: Session, say: Say = print) -> Results:
    """Runs what is missing and returns the results of the session's claims, which stand in `session.results` as well,
    written claim by claim. Started again it goes on. UserError where an arm cannot be built, before anything runs, and
    where another process is at work in `out`."""
    check(session.claims)
    lock = Lock(session.out, "claims")
    try:
        for claim in session.claims:
            if claim.untested:
                _write(session, claim, {"state": UNTESTED, "why": claim.untested})
        todo = [c for c in session.claims if not c.untested and not _known(session, c)]
        todo = [c for c in todo if not _refused(session, c, say)]
        again = _round(session, todo, jobs_of(session.out, todo), say)
        if again:
            say(
                f"not resolved with {again[0].seeds} seeds: {', '.join(c.recipe for c in again)}; more are run"
            )
            _round(session, again, jobs_of(session.out, again, more=True), say, last=True)
    finally:
        lock.release()
    found = read_results(session.results)
    return {c.recipe: found[c.recipe] for c in session.claims if c.recipe in found}


def _refused(session: Session, claim: Claim, say: Say) -> bool:
    """Whether a claim is settled before anything is trained."""
    result = refused(claim, abilities(claim, session.out))
    if result is None:
        return False
    _write(session, claim, {"state": "run", **result})
    say(f"{claim.recipe} on {claim.on}: {summary(result)}")
    return True


def _round(
    session: Session, claims: Sequence[Claim], jobs: Sequence[ClaimJob], say: Say, last: bool = False
) -> list[Claim]:
    """Runs jobs, and concludes claims as their runs end. Returns those that more seeds may resolve."""
    open_claims = list(claims)
    again: list[Claim] = []

    def conclude(_: Job | None = None) -> None:
        for claim in list(open_claims):
            seeds = claim.more_seeds if last else claim.seeds
            runs = facts(session.out, claim, seeds)
            if runs is None:
                base = facts_of(session.out, claim, claim.base, seeds)
                if base and (shut := refused(claim, abilities(claim, session.out), base)):
                    open_claims.remove(claim)
                    _write(session, claim, {"state": "run", **shut})
                    say(f"{claim.recipe} on {claim.on}: {summary(shut)}")
                continue
            open_claims.remove(claim)
            result = judged(claim, *runs, able=abilities(claim, session.out))
            if not last and claim.more_seeds > claim.seeds and unresolved(result):
                again.append(claim)  # recorded all the same: who stops here has an honest "not resolved"
                result[MORE] = claim.more_seeds
            _write(session, claim, {"state": "run", **result})
            say(f"{claim.recipe} on {claim.on}: {summary(result)}")

    def needed(job: Job) -> bool:
        return job.path in {j.path for j in jobs_of(session.out, open_claims, more=last)}

    conclude()
    failed = run_all(jobs, session.workers, say, worker=WORKER, ended=conclude, needed=needed)
    for claim in open_claims:
        why = _reasons(session, claim, jobs, failed)
        _write(session, claim, {"state": FAILED, "why": why})
        say(f"{claim.recipe} on {claim.on}: failed: {why}")
    return again


def facts(out: Path, claim: Claim, seeds: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """The facts of both arms, seed by seed; None where some are missing."""
    arm, base = (facts_of(out, claim, which, seeds) for which in (claim.arm, claim.base))
    return (arm, base) if arm and base else None


def facts_of(out: Path, claim: Claim, arm: str, seeds: int) -> list[dict[str, Any]] | None:
    """The facts of one arm, seed by seed; None where some are missing."""
    files = [facts_file(out, claim, arm, seed) for seed in range(seeds)]
    return [read_facts(file) for file in files] if all(file.exists() for file in files) else None


def summary(result: Mapping[str, Any]) -> str:
    """`reproduces? held +4.2 [+1.0, +7.4]; pays for itself? not held ...`."""
    said = []
    for name, question in AXES.items():
        found = result[name]
        numbers = (
            f" {found['effect']:+.3g} [{found['low']:+.3g}, {found['high']:+.3g}]"
            if "effect" in found
            else ""
        )
        said.append(f"{question} {found['label']}{numbers}")
    return "; ".join(said)


def _reasons(session: Session, claim: Claim, jobs: Sequence[Job], failed: Mapping[Path, str]) -> str:
    arms = {claim.arm, claim.base}
    why = {f"{j.arm}: {failed[j.path]}" for j in jobs if j.path in failed and j.arm in arms}
    return "; ".join(sorted(why)) or "a run is missing"


def read_results(file: Path) -> Results:
    found: Results = read_json(file) if file.exists() else {}
    return found


def _known(session: Session, claim: Claim) -> bool:
    """Whether the claim has its last result with the settings as they stand."""
    found = read_results(session.results).get(claim.recipe, {}).get(claim.on, {})
    return found.get("settings") == claim.digest and found["state"] == "run" and MORE not in found


def _write(session: Session, claim: Claim, result: Mapping[str, Any]) -> None:
    about: dict[str, Any] = {"on": claim.on, "says": claim.says, "settings": claim.digest}
    if not claim.untested:
        names = ("arm", "base", "metric", "better", "least", "updates", "tasks", "model")
        about |= {name: getattr(claim, name) for name in names}
        about |= {"command": f"{session.command} {claim.called or claim.recipe} --on {claim.on}"}
        here = card()
        about |= {"commit": here["commit"], "processor": here["machine"]["processor"]}
    if session.trial:
        about["trial"] = True
    everything = read_results(session.results)
    everything.setdefault(claim.recipe, {})[claim.on] = {**about, **result}
    session.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(session.results, json.dumps(dict(sorted(everything.items())), indent=1) + "\n")
