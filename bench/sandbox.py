"""What it costs to run a program that a model wrote in a process of its own: milliseconds a program, and a ratio.

    python bench/sandbox.py [--programs N]

Each program is loaded and called eight times. `latency`: from the moment that a program is there to its last result,
with processes started ahead; `throughput`: one after the other without a pause. The ratio is to `exec` in this process,
which keeps nothing in. Written to bench/results/sandbox.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from etude.tasks import confinement, outcomes, sandbox

CODE = "def f(xs):\n    return sum(x * x for x in xs)"
CASES = [list(range(n)) for n in range(8)]


def one(box: sandbox.Sandbox) -> float:
    begin = time.perf_counter()
    with box.program() as program:
        assert program.load(CODE) is None
        for xs in CASES:
            assert program.call("f", (xs,)) == outcomes.Returned(sum(x * x for x in xs))
        end = time.perf_counter()
    return end - begin


def bare() -> float:
    begin = time.perf_counter()
    place: dict = {}
    exec(CODE, place)
    for xs in CASES:
        assert place["f"](xs) == sum(x * x for x in xs)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=100)
    n = parser.parse_args().programs
    kinds = {"namespaces": confinement.bubblewrap(), "landlock": confinement.landlock()}
    found: dict[str, object] = {}
    for kind in [k for k, there in kinds.items() if there]:
        if kind == "landlock":
            confinement.bubblewrap = lambda: None  # type: ignore[assignment]
        with sandbox.Sandbox(ahead=2) as box:
            one(box)
            waited = []
            for _ in range(n):
                time.sleep(0.05)  # a program comes when the last one's successor is ready
                waited.append(one(box))
            begin = time.perf_counter()
            for _ in range(n):
                one(box)
            through = (time.perf_counter() - begin) / n
        plain = statistics.median(bare() for _ in range(n))
        found[kind] = {
            "latency_ms": round(1e3 * statistics.median(waited), 2),
            "throughput_ms": round(1e3 * through, 2),
            "times_exec": round(statistics.median(waited) / plain),
        }
    print(json.dumps(found, indent=1))
    Path(__file__).with_name("results").joinpath("sandbox.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
