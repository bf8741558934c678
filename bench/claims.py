"""Do the claims of published methods hold at small scale? Settings are fixed beforehand in bench/claims.toml.

    python bench/claims.py [--on lab|smollm2] [--only NAME,...] [--parallel 2] [--plan]

Every claim is a method against its baseline: equal compute, the same problems, several seeds, `compare`'s statistics.
Runs are shared between claims and kept, reduced to a few numbers, in runs/claims: started again it goes on. Results
are written claim by claim to src/etude/docs/claims.json, where `etude recipes` reads them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import repetition
from scipy import stats

from etude.assembly import build
from etude.compare.arms import parse_arms
from etude.compare.paired import compare
from etude.compare.schedule import Job, perform
from etude.compare.variance import contrast
from etude.docs.claims import FILE, read
from etude.errors import UserError
from etude.evaluate.passk import pass_at
from etude.evaluate.transitions import WAYS, outcomes, transitions
from etude.launch import environment
from etude.report.run import RunDirectory
from etude.sampling.engine import sampler_for
from etude.train.config import Budget, Plan
from etude.train.setup import card, resolve

HERE = Path(__file__).parent
SETTINGS = HERE / "claims.toml"
WORK = HERE.parent / "runs" / "claims"
K = 8  # attempts of pass@k
FEW = 40  # solutions of the tasks "few"
TWICE = ("erl", "score", "ufo", "rise", "rltf_sd", "critique_grpo", "re_rest")  # methods that try again


@dataclass(frozen=True)
class Claim:
    """One entry of the settings, with what is common to its group filled in."""

    recipe: str
    on: str
    says: str
    model: str
    tasks: str
    budget: str
    seeds: int
    changes: Mapping[str, str]
    arm: str = ""
    base: str = ""
    metric: str = "accuracy"
    better: str = "higher"
    least: float = 2.0
    guard: float | None = None
    elsewhere: str = ""
    untested: str = ""

    @property
    def digest(self) -> str:
        """Changes with every setting, so that a result cannot outlive them."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def plan(self, arm: str, seed: int) -> Plan:
        """The run of one of the two arms."""
        (one,) = parse_arms([arm])
        changes = {**self.changes, **one.changes}
        return Plan(one.recipe, self.model, source(self.tasks), Budget.parse(self.budget), seed, changes)


def load(path: Path = SETTINGS, only: str = "") -> list[Claim]:
    """All claims, or those of the group `only`, in the order of the file. UserError for a metric or direction that
    does not exist."""
    found = []
    for name, group in tomllib.loads(path.read_text()).items():
        common = {"on": name, **{k: v for k, v in group.items() if k not in ("claim", "beside")}}
        for recipe, own in group["claim"].items() if only in ("", name) else ():
            claim = Claim(recipe, **{**common, **own})
            on = claim.on
            if claim.metric not in METRICS or claim.better not in ("higher", "lower"):
                raise UserError(f"claims.toml: {on}.{recipe} has metric '{claim.metric}', '{claim.better}'")
            found.append(claim)
    return found


def source(tasks: str) -> str:
    """A task source: one of the two files that are made here, or what `etude` itself knows by that name."""
    return FILES[tasks]() if tasks in FILES else tasks


def text() -> str:
    """A file of running text, a third of it to be examined on; written anew when missing."""
    place = WORK / "passages.jsonl"
    if not place.exists():
        repetition.write(place)
    return f"{place}:check=exact,eval_share=0.33"


def few() -> str:
    """A file of few problems with their solutions, and 200 to be examined on; written anew when missing."""
    from etude.lab.tasks import LEVELS, lab_task

    place = WORK / "few.jsonl"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        rows: dict[str, str] = {}
        for i in range(10_000):
            task = lab_task(("sum", "reverse")[i % 2], i // 2 % len(LEVELS), i)
            row = {"prompt": task.prompt[0].content, "answer": task.answer, "reference": task.reference}
            rows[task.key] = json.dumps({**row, "kind": task.kind, "difficulty": task.difficulty})
            if len(rows) == FEW + 200:
                break
        place.write_text("\n".join(rows.values()))
    return f"{place}:extract=tag,check=exact,eval_share={200 / (200 + FEW):.6f}"


FILES = {"few": few, "text": text}


# ---- runs ----------------------------------------------------------------------------------------------------------


def name_of(plan: Plan) -> str:
    """Names a run by all that it is made of but its seed: claims with equal plans share it."""
    text = json.dumps({**plan.to_dict(), "seed": None}, sort_keys=True)
    return f"{plan.recipe}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def facts_of(claim: Claim, arm: str) -> Path:
    return WORK / "facts" / f"{name_of(claim.plan(arm, 0))}{_else(claim)}"


def _else(claim: Claim) -> str:
    asked = f"{claim.metric}{claim.elsewhere}" if claim.metric in LATER else ""
    asked += claim.arm if claim.recipe in TWICE else ""
    return f"-{hashlib.blake2b(asked.encode(), digest_size=3).hexdigest()}" if asked else ""


def play(claim: Claim, pool: Executor) -> dict[str, str]:
    """Runs what is missing of both arms. Returns {arm: why it failed}."""
    jobs = {}
    for seed in range(claim.seeds):
        for arm in (claim.arm, claim.base):
            if not (facts_of(claim, arm) / f"{seed}.json").exists():
                jobs[pool.submit(played, claim, arm, seed)] = (arm, seed)
    failed = {}
    for done in as_completed(jobs):
        arm, seed = jobs[done]
        try:
            _write(facts_of(claim, arm) / f"{seed}.json", done.result())
        except UserError as error:
            failed[arm] = str(error)
        print(f"  {arm}, seed {seed}: {failed.get(arm, 'done')}", flush=True)
    return failed


def played(claim: Claim, arm: str, seed: int) -> dict[str, Any]:
    """One run in a worker, whole or what is left of it, and what is kept of it."""
    plan = claim.plan(arm, seed)
    path = WORK / "arms" / name_of(plan) / f"seed-{seed}"
    # Half a minute each for a language model, which is the same one every time.
    before = claim.on == "lab"
    job = Job(arm, seed, plan.to_dict(), path, keep=bool(_else(claim)), before=before)
    if not job.done:
        perform(job)
    facts = reduced(claim, path)
    shutil.rmtree(path)
    return facts


def reduced(claim: Claim, path: Path) -> dict[str, Any]:
    """What is kept of a run: its last evaluation, the course of its gradient norm, what it cost."""
    run = RunDirectory.open(path)
    last, metrics = run.evals()[-1], run.metrics()
    norms = [m["grad_norm"] for m in metrics if m.get("grad_norm")]
    facts = {
        "per_problem": last["per_problem"],
        "length": last["length"],
        "grad_norm_cv": 100 * float(np.std(norms) / np.mean(norms)) if norms else None,
        "steps": len(metrics),
        "flops": metrics[-1]["flops"],
        "seconds": metrics[-1]["seconds"],
        "attempts": sum(m["groups"] for m in metrics) * run.config["settings"]["group_size"],
        "curve": [[e["flops"], e["mean"]] for e in run.evals()],
        "wasted": 100
        - 100 * float(np.average([m["signal"] for m in metrics], weights=[m["groups"] for m in metrics])),
        "hardest": hardest(claim.tasks, last["per_problem"]),
        "path": [m["curriculum"] for m in metrics if "curriculum" in m],
        "kinds": {kind: row["mean"] for kind, row in last["kinds"].items()},
    }
    late = [m for m in metrics[len(metrics) * 4 // 5 :] if "attempts/second" in m]
    if late:  # over the last fifth of the steps
        ways = [k for k in late[0] if k.startswith("attempts/")]
        facts |= {k: float(np.mean([m[k] for m in late])) for k in ways}
        facts["gain"] = 100 * (facts["attempts/second"] - facts["attempts/first"])
    if claim.metric in ("entropy", "elsewhere"):
        groups = examined(path, claim.elsewhere or claim.tasks)
        words = np.concatenate([e.logp[e.sampled] for g in groups for e in g.episodes])
        facts["entropy"] = float(-words.mean())  # of the sampled tokens: an unbiased reading
        facts["elsewhere"] = [
            [g.task.key, sum(e.correct for e in g.episodes), len(g.episodes)] for g in groups
        ]
    if claim.metric in ("repeated", "predicted"):
        policy, settings = finished(path)
        facts |= repetition.measured(policy, settings, held_out(claim.tasks, settings.eval_problems))
    if claim.recipe in TWICE:  # both arms meet the problems as the method is examined
        recipe, _, _ = resolve(claim.plan(claim.arm, 0))
        _, stages = build(recipe, recipe.all_exam)
        facts["twice"] = twice(examined(path, claim.tasks, stages["rollout"]))
    return facts


def twice(groups: Sequence[Any]) -> dict[str, Any]:
    """Held-out problems with second attempts: accuracies, the four ways between them, sampled tokens an episode, and
    [problem, right at the first, right at the last, attempts]."""
    episodes = [e for g in groups for e in g.episodes]
    return {
        **transitions(groups),
        "tokens": float(np.mean([e.sampled.sum() for e in episodes])),
        "per_problem": [
            [g.task.key, *map(int, np.sum([outcomes(e) for e in g.episodes], axis=0)), len(g.episodes)]
            for g in groups
        ],
    }


def hardest(tasks: str, found: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Those of the problems that are of the hardest level there is."""
    level = {t.key: t.difficulty for t in held_out(tasks, len(found))}
    return [row for row in found if level[row[0]] == max(level.values())]


@cache
def held_out(tasks: str, number: int) -> Sequence[Any]:
    """The problems that a run on `tasks` is examined on."""
    from etude.train.measure import exam_tasks

    return exam_tasks(source(tasks), None, number)[1]


def examined(path: Path, tasks: str, rollout: Any = None) -> Sequence[Any]:
    """Attempts of a finished run's policy at held-out problems of `tasks`; single ones without a `rollout`."""
    import asyncio

    from etude.evaluate.run import attempt
    from etude.rollout.conversation import Generator
    from etude.rollout.group_rollout import checks_in
    from etude.tasks.isolate import Pool

    policy, settings = finished(path)
    sampler = sampler_for(policy, settings.rows)
    held = held_out(tasks, settings.eval_problems)
    generator = Generator(sampler, policy.renderer, settings.sampling, "policy", settings.context)
    with Pool(seconds=10) as pool:
        return asyncio.run(
            attempt(generator, checks_in(pool, sampler, {}), held, settings.eval_samples, 0, rollout)
        )


def finished(path: Path) -> tuple[Any, Any]:
    """The policy of a finished run, and its settings."""
    from etude.train.config import run_settings
    from etude.train.measure import load_policy, run_defaults

    settings = run_settings(run_defaults(str(path)), {})
    return load_policy(str(path), settings.precision), settings


# ---- outcomes ------------------------------------------------------------------------------------------------------


def by_problem(name: str) -> Any:
    def table(runs: Sequence[Mapping[str, Any]], k: int) -> np.ndarray:
        keys = sorted(key for key, _, _ in runs[0][name])
        rows = [{key: float(pass_at(k, c, n)) for key, c, n in run[name]} for run in runs]
        return np.array([[row[key] for key in keys] for row in rows])

    return table


TABLES = {
    "accuracy": (by_problem("per_problem"), 1),
    "pass@8": (by_problem("per_problem"), K),
    "elsewhere": (by_problem("elsewhere"), 1),
    "hardest": (by_problem("hardest"), 1),
}
SCALARS = ("entropy", "length", "grad_norm_cv", "gain", "wasted", "repeated", "predicted")
METRICS = (*TABLES, *SCALARS)
LATER = ("entropy", "elsewhere", "repeated", "predicted")  # measured on the finished policy


def difference(
    metric: str, arm: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """arm - base with its 95 % interval: points for what is counted per problem (`compare`'s statistics), units of the
    metric otherwise (Welch's t over seeds)."""
    if metric in TABLES:
        make, k = TABLES[metric]
        found = compare({"arm": make(arm, k), "base": make(base, k)}, base="base").differences[0]
        return {"effect": found.effect, "low": found.low, "high": found.high}
    x, y = ([run[metric] for run in runs] for runs in (arm, base))
    interval = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    effect = float(np.mean(x) - np.mean(y))
    return {"effect": effect, "low": float(interval.low), "high": float(interval.high)}


def two_attempts(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of what `twice` measured, in percent or tokens, and the gain of the last attempt over the
    first with its 95 % interval over problems and seeds."""
    found = [run["twice"] for run in runs]
    tables = {
        name: by_problem("rows")(
            [{"rows": [[r[0], r[at], r[3]] for r in f["per_problem"]]} for f in found], 1
        )
        for name, at in (("first", 1), ("last", 2))
    }
    shares = {k: 100 * float(np.mean([f.get(k, 0.0) for f in found])) for k in ("first", "second", *WAYS)}
    gains = tables["last"] - tables["first"]
    gain = contrast(gains, np.zeros((1, gains.shape[1])), fixed=(False, True))
    low, high = gain.limits(0.95)
    tokens = float(np.mean([f["tokens"] for f in found]))
    return {
        **shares,
        "gain": 100 * float(gain.effect),
        "interval": [100 * float(low), 100 * float(high)],
        "tokens": tokens,
        "problems": gain.size,
        "samples": found[0]["per_problem"][0][3],
    }


def outcome(claim: Claim, found: Mapping[str, float], guard: Mapping[str, float] | None) -> str:
    """held | not held | not resolved, by the rule at the top of claims.toml."""
    sign = 1 if claim.better == "higher" else -1
    low, high = sorted((sign * found["low"], sign * found["high"]))
    if high < claim.least:
        return "not held"
    if guard is not None and claim.guard is not None:
        if guard["high"] < -claim.guard:
            return "not held"
        if guard["low"] < -claim.guard:
            return "not resolved"
    return "held" if low > 0 and sign * found["effect"] >= claim.least else "not resolved"


def concluded(claim: Claim, failed: Mapping[str, str]) -> dict[str, Any]:
    """The result of a claim whose runs are done, as claims.json holds it."""
    about: dict[str, Any] = {"on": claim.on, "says": claim.says, "settings": claim.digest}
    if claim.untested:
        return {**about, "state": "not testable here", "why": claim.untested}
    about |= {k: getattr(claim, k) for k in ("arm", "base", "metric", "better", "least", "seeds", "budget")}
    about |= {"tasks": claim.tasks, "command": command(claim)}
    if failed:
        return {**about, "state": "failed", "why": "; ".join(f"{a}: {why}" for a, why in failed.items())}
    runs = {
        arm: [json.loads((facts_of(claim, arm) / f"{s}.json").read_text()) for s in range(claim.seeds)]
        for arm in (claim.arm, claim.base)
    }
    mine, other = runs.values()
    found = difference(claim.metric, mine, other)
    guard = difference("accuracy", mine, other) if claim.guard is not None else None
    means = {
        side: {
            "accuracy": 100 * float(by_problem("per_problem")(some, 1).mean()),
            **{
                k: float(np.mean([r[k] for r in some]))
                for k in ("steps", "flops", "seconds", "length", "nats")
                if k in some[0]
            },
        }
        for side, some in (("arm", mine), ("base", other))
    }
    if claim.recipe in TWICE:
        about["twice"] = {side: two_attempts(some) for side, some in (("arm", mine), ("base", other))}
    return {
        **about,
        "state": outcome(claim, found, guard),
        "effect": found["effect"],
        "interval": [found["low"], found["high"]],
        "guard": guard,
        "means": means,
        "commit": card()["commit"],
    }


def command(claim: Claim) -> str:
    return f"python bench/claims.py --on {claim.on} --only {claim.recipe}"


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(beside, path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", choices=("lab", "smollm2"), default="lab")
    parser.add_argument("--only", default="", help="recipes, separated by commas")
    parser.add_argument(
        "--parallel",
        type=int,
        default=2,
        help="runs at once, one thread each (of ERL on SmolLM2 each takes 13 GB)",
    )
    parser.add_argument(
        "--plan", action="store_true", help="say what would run, and check that it can be built"
    )
    a = parser.parse_args()
    only = [name for name in a.only.split(",") if name]
    claims = [c for c in load() if c.on == a.on and (not only or c.recipe in only)]
    if missing := set(only) - {c.recipe for c in claims}:
        raise UserError(f"claims.toml has no claim of {', '.join(sorted(missing))} on {a.on}")
    runs = {name_of(c.plan(arm, 0)) for c in claims if not c.untested for arm in (c.arm, c.base)}
    for claim in claims:
        for arm in (claim.arm, claim.base) if not claim.untested else ():
            resolve(claim.plan(arm, 0))
    print(f"{len(claims)} claims on {a.on}: {len(runs)} arms, {len(runs) * claims[0].seeds} runs", flush=True)
    if a.plan:
        return 0
    os.environ.update({**environment(), "OMP_NUM_THREADS": "1"})
    for number, claim in enumerate(claims, 1):
        known = read().get(claim.recipe, {}).get(claim.on, {})
        if known.get("settings") == claim.digest and known["state"] != "failed":
            continue
        begin = time.perf_counter()
        # Workers live for one claim, which saves imports; those of a language model for one run, since a worker gives
        # no memory back and two of them may not fit.
        runs_each = None if a.on == "lab" else 1
        with ProcessPoolExecutor(a.parallel, get_context("spawn"), max_tasks_per_child=runs_each) as pool:
            result = concluded(claim, {} if claim.untested else play(claim, pool))
        everything = read()
        everything.setdefault(claim.recipe, {})[claim.on] = result
        _write(FILE, dict(sorted(everything.items())))
        seconds = time.perf_counter() - begin
        print(f"[{number}/{len(claims)}] {claim.recipe}: {result['state']} ({seconds:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"claims: {error}", file=sys.stderr)
        sys.exit(2)
