"""Can the statistics of `etude.evaluate` be trusted? Coverage, false findings and power by simulation.

    OMP_NUM_THREADS=1 python bench/trust.py [--repeats 4000] [--out bench/results/trust.json]

`trust_draws.py` holds the experiments and the methods compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from trust_draws import (
    PAIRED_METHODS,
    SINGLE,
    SINGLE_METHODS,
    Arms,
    Regime,
    best_calibration,
    experiments,
    family_error,
    over_problems,
    paired_coverage,
    rejected,
    single_coverage,
    truth,
    welch,
)


def spread_of(values: Iterable[float]) -> dict[str, float]:
    v = np.array(list(values))
    inside = float(np.mean((v >= 0.93) & (v <= 0.97)))
    facts = {"mean": v.mean(), "lowest": v.min(), "highest": v.max(), "share in 93-97 %": inside}
    return {name: round(float(x), 4) for name, x in facts.items()}


def single_report(repeats: int) -> dict[str, object]:
    def plenty(r: Regime) -> bool:  # at least five problems' worth of the rarer outcome
        return r.problems * min(r.mean, 1 - r.mean) >= 5

    out = {}
    for name, method in SINGLE_METHODS.items():
        found = single_coverage(method, SINGLE, repeats)
        both = {True: [], False: []}
        for r, c in found.items():
            both[plenty(r)].append(c)
        out[name] = {
            "five or more rare problems": spread_of(both[True]),
            "near 0 or 1": spread_of(both[False]),
        }
    return out


def paired_report(repeats: int) -> dict[str, object]:
    out: dict[str, object] = {}
    for s in (2, 3, 4, 5, 8):
        for name, method in PAIRED_METHODS.items():
            n = min(repeats, 500) if name == "hierarchical bootstrap" else repeats
            found = paired_coverage(method, experiments((s,)), n).values()
            row = spread_of(c for c, _ in found)
            row["half width, points"] = round(float(np.mean([w for _, w in found])), 2)
            out[f"{s} seeds: {name}"] = row
        moved = [replace(e, shared=0.5) for e in experiments((s,))]
        row = spread_of(c for c, _ in paired_coverage(welch, moved, repeats).values())
        out[f"{s} seeds: etude, equal seeds correlated 0.5"] = row
    return out


def rates_report(repeats: int) -> dict[str, object]:
    grid = list(itertools.product((3, 5), (0.12, 0.18, 0.24)))
    false = {
        f"{name}; {s} seeds, seed sd {spread} logits": round(rejected(method, Arms(s, spread=spread), n), 4)
        for name, method in PAIRED_METHODS.items()
        for n in [min(repeats, 2000) if name == "hierarchical bootstrap" else 4 * repeats]
        for s, spread in grid
    }
    five = (0.0,) * 5
    family = {
        f"{'Holm' if c else 'uncorrected'}; {s} seeds, seed sd {spread} logits": round(
            family_error(Arms(s, spread=spread, effects=five), repeats, corrected=c), 4
        )
        for c in (True, False)
        for s, spread in grid
    }
    power = {}
    for s, n, shift in itertools.product((3, 5, 8), (100, 300), (0.3, 0.6, 1.2)):
        e = Arms(s, n, spread=0.15, effects=(shift, 0.0), taste=0.3)
        points = 100 * float(np.subtract(*truth(e)))
        power[f"{s} seeds, {n} problems, effect {points:.1f} points"] = round(rejected(welch, e, repeats), 3)
    return {"called different though equal": false, "any of four called different": family, "power": power}


def checkpoints_report(repeats: int) -> dict[str, float]:
    """Two checkpoints on the same problems: one row each, also where hardly any problem differs."""
    grid = [
        Arms(1, n, k, 0.0, (shift, 0.0), 0.5, rest=0.0, base=base)
        for n, k, shift, base in itertools.product((30, 100, 300), (1, 4, 16), (0.0, 0.5), (-5.0, -0.4, 4.0))
    ]
    return spread_of(c for c, _ in paired_coverage(over_problems, grid, repeats).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trust.json")
    given = parser.parse_args()
    start, n = time.time(), given.repeats
    facts = {
        "command": " ".join(["OMP_NUM_THREADS=1 python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(),
        "repeats": n,
        "coverage of 95 % intervals, one result": single_report(n),
        "coverage of 95 % intervals, two checkpoints": checkpoints_report(n),
        "coverage of 95 % intervals, difference of two arms": paired_report(n // 2),
        "rates at level 5 %": rates_report(n),
        "probability of being best": best_calibration(n),
    }
    facts["seconds"] = round(time.time() - start, 1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
