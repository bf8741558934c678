"""Can a comparison be trusted end to end? Real runs of a small model, many times over.

    OMP_NUM_THREADS=1 python bench/trust_runs.py --pilot      # what power is to be expected; on seeds of its own
    OMP_NUM_THREADS=1 python bench/trust_runs.py              # started again it goes on

A/A: the same recipe under two names, each arm with seeds of its own, must be called different in at most 5 % of
comparisons. Planted handicaps, half the learning rate and a wrong sign on 20 % of the advantages, must be found worse
as often as bench/trust_runs.toml says, which also holds the settings. No run occurs twice within one count; the plain
runs of the handicaps' counts are those of the A/A count. Writes bench/results/trust_runs.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from contestants import card, write_result
from scipy import stats

SETTINGS = Path(__file__).with_suffix(".toml")
KEPT = Path(__file__).parent.parent / "runs" / "trust"
HANDICAPS = ("half_rate", "wrong_sign")
UNTRAINED = ("untrained", 0)
PILOT = 1_000_000  # seeds of the pilot begin here
Job = tuple[str, int]  # variant ("untrained", "plain" or a handicap), seed


def settings() -> dict[str, Any]:
    return tomllib.loads(SETTINGS.read_text())


def flipped(share: float, credit: Any) -> Any:
    """Credit with the wrong sign on a keyed share of its signals."""

    def wrong(groups: Sequence[Any], context: Any) -> list[Any]:
        signals = credit(groups, context)
        draws = context.rng("handicap").random(len(signals))
        return [
            replace(s, advantage=-s.advantage) if draw < share else s
            for s, draw in zip(signals, draws, strict=True)
        ]

    return wrong


def accuracies(job: Job) -> list[float]:
    """Held-out accuracy per problem after one run; from the disk where it was run before."""
    import torch

    torch.set_num_threads(1)
    chosen = settings()
    recipe = {k: chosen[k] for k in ("model", "tasks", "recipe", "budget", "changes")}
    digest = hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=6).hexdigest()
    kept = KEPT / digest / f"{job[0]}-{job[1]}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        result = played(job, chosen)
        beside = kept.with_suffix(".tmp")
        beside.write_text(json.dumps(result))
        beside.replace(kept)
    return json.loads(kept.read_text())


def played(job: Job, chosen: dict[str, Any]) -> list[float]:
    from etude.tasks import load
    from etude.train.config import Budget, Plan
    from etude.train.loop import train
    from etude.train.setup import start

    variant, seed = job
    changes = dict(chosen["changes"])
    if variant == "half_rate":
        changes["update.lr"] = str(float(changes["update.lr"]) / 2)
    budget = Budget.parse(chosen["budget"])
    plan = Plan(chosen["recipe"], chosen["model"], chosen["tasks"], budget, seed, changes)
    with tempfile.TemporaryDirectory() as where:
        run = start(plan, Path(where) / "run", load(plan.tasks))
        if variant == "wrong_sign":
            run.credit = flipped(0.2, run.credit)
        if variant == "untrained":
            result = run.evaluate("before")
        else:
            train(run)
            result = run.evaluate("last")
        run.close()
    return [correct / samples for _, correct, samples in sorted(result.per_problem)]


def play(jobs: Sequence[Job], processes: int) -> np.ndarray:
    """float[jobs, P]: accuracy after each run."""

    def shown(results: Iterator[list[float]]) -> Iterator[list[float]]:
        for i, one in enumerate(results, 1):
            if i % 20 == 0 or i == len(jobs):
                print(f"{i} of {len(jobs)} runs", flush=True)
            yield one

    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return np.array(list(shown(pool.imap(accuracies, jobs))))


def pilot(count: int, processes: int) -> None:
    """Prints what the runs gain, how far seeds differ, and the power to be expected for several numbers of seeds."""
    from etude.compare.variance import contrast

    variants = ("plain", *HANDICAPS)
    jobs = [(v, PILOT + count * i + s) for i, v in enumerate(variants) for s in range(count)]
    start, *table = play([UNTRAINED, *jobs], processes)
    arms = dict(zip(variants, np.reshape(table, (len(variants), count, -1)), strict=True))
    for name, runs in arms.items():
        means = 100 * runs.mean(-1)
        print(f"{name}: {100 * start.mean():.1f} -> {means.mean():.1f} %, seed SD {means.std(ddof=1):.1f}")
    for name in HANDICAPS:
        found = contrast(arms[name], arms["plain"])
        chances = {n: f"{power(found, n):.0%}" for n in (3, 4, 5, 6)}
        print(f"{name}: {100 * found.effect:+.1f} points; power by seeds: {chances}")


def power(found: Any, seeds: int) -> float:
    """The chance that a true effect as large as the one in `found` is called worse at 5 %, two-sided, with `seeds`
    runs per arm and the variances of `found`."""
    parts = [(float(found.problems), found.size - 1)]
    parts += [(float(v) * n / seeds, seeds - 1) for v, n in zip(found.seeds, found.counts, strict=True)]
    variance = sum(v for v, _ in parts)
    degrees = variance**2 / sum(v**2 / d for v, d in parts)
    return float(
        stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, abs(float(found.effect)) / np.sqrt(variance))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pilot", type=int, nargs="?", const=8, help="runs per variant; nothing is written")
    parser.add_argument("--processes", type=int, default=2)
    a = parser.parse_args()
    if a.pilot:
        pilot(a.pilot, a.processes)
        return
    plan = settings()["plan"]
    same, planted = plan["same"], plan["planted"]
    plain = 2 * same["comparisons"] * same["seeds"]
    each = planted["comparisons"] * planted["seeds"]
    if each > plain:
        raise SystemExit(f"{each} plain runs are needed beside a handicap, but A/A makes {plain}")
    jobs: list[Job] = [("plain", seed) for seed in range(plain)]
    jobs += [(name, plain + each * i + seed) for i, name in enumerate(HANDICAPS) for seed in range(each)]
    start, *rows = play([UNTRAINED, *jobs], a.processes)
    table = np.array(rows)
    base = table[:plain]
    arms = base.reshape(same["comparisons"], 2, same["seeds"], -1)
    result = {
        "what": "comparisons of real training runs of a small model",
        "command": " ".join(["python", *sys.argv]),
        "settings": settings(),
        "start": float(start.mean()),
        "plain": float(base.mean()),
        "seed_sd_points": float(100 * base.mean(1).std(ddof=1)),
        "aa": found(arms[:, 0], arms[:, 1]),
    }
    shape = (planted["comparisons"], planted["seeds"], -1)
    for i, name in enumerate(HANDICAPS):
        mine = table[plain + i * each : plain + (i + 1) * each]
        result[name] = {"mean": float(mine.mean()), **found(mine.reshape(shape), base[:each].reshape(shape))}
    write_result("trust_runs", {**result, "card": card()})
    print(json.dumps(result, indent=1))


def found(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """What `compare` says of each pair of arms float[C, S, P]: first minus second."""
    from etude.compare.paired import compare

    pairs = zip(first, second, strict=True)
    rows = [compare({"second": y, "first": x}).differences[0].to_dict() for x, y in pairs]
    called = [d for d in rows if d["adjusted"] <= 0.05]
    exact = stats.binomtest(len(called), len(rows)).proportion_ci(method="exact")
    return {
        "comparisons": len(rows),
        "called_different": len(called),
        "called_worse": sum(d["effect"] < 0 for d in called),
        "share": len(called) / len(rows),
        "interval": [float(exact.low), float(exact.high)],
        "mean_effect": float(np.mean([d["effect"] for d in rows])),
        "mean_error": float(np.mean([d["error"] for d in rows])),
        "p": [d["p"] for d in rows],
    }


if __name__ == "__main__":
    main()
