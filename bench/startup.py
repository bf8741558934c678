"""Start-up: from the command `etude train` to the first sampled token, with a warm file cache.

    python bench/startup.py [--rounds 5]

The program is started as a user starts it, by `etude.launch`, which starts Python a second time with the allocator's
settings; only its `main` is entered from a file that also watches the clock. The first start, which warms the file
cache, is not counted. Where the time goes is told by the same starts. Writes bench/results/startup.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contestants import HERE, write_result

COMMAND = ["train", "grpo", "--model", "smollm2", "--tasks", "chain_sum:max_terms=2,max_digits=2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    starts = [one_start() for _ in range(a.rounds + 1)][1:]
    parts = {name: statistics.median(s[name] for s in starts) for name in starts[0]}
    for name, seconds in parts.items():
        print(f"  {name:40} {seconds:6.2f} s")
    result = {
        "what": "seconds from `etude train` to the first sampled token",
        "etude": {"seconds": parts["total"], "all_seconds": [s["total"] for s in starts]},
        "parts": {name: seconds for name, seconds in parts.items() if name != "total"},
        "rounds": a.rounds,
    }
    write_result("startup", result)


def one_start() -> dict[str, float]:
    """Seconds by part, in order, and in all."""
    with tempfile.TemporaryDirectory() as place:
        marks = Path(place) / "marks"
        command = [sys.executable, str(HERE / "startup_watch.py"), *COMMAND, "--out", f"{place}/run"]
        env = {k: v for k, v in os.environ.items() if k != "ETUDE_LAUNCHED"} | {"STARTUP_MARKS": str(marks)}
        begin = time.time()
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if not marks.exists():
            raise SystemExit(f"no token was sampled (exit code {done.returncode}):\n{done.stderr}")
        lines = [line.rsplit(" ", 1) for line in marks.read_text().splitlines()]
    times = [(name, float(at)) for name, at in lines]
    found: dict[str, float] = {}
    before = begin
    for name, at in times:
        found[name] = found.get(name, 0.0) + at - before
        before = at
    return {**found, "total": before - begin}


if __name__ == "__main__":
    main()
