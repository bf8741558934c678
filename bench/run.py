"""Every speed bench, one after the other, then the README's table and pictures: `make bench`. Takes about an hour and
a half on two quiet cores, two thirds of it the peers' steps; leave the machine alone meanwhile.

    python bench/run.py [--quick] [NAME ...]     # a part of them, such as: sampling startup

`--quick`: fewest rounds, to see that everything runs; its figures are worth nothing and are not kept. The benches of trust (`trust.py`,
`trust_runs.py`) measure no speed and are run by their names.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ONE = ["--rounds", "1"]
# name: file, arguments, arguments of a quick look
BENCHES: dict[str, tuple[str, list[str], list[str]]] = {
    "startup": ("startup.py", [], ONE),
    "soak": ("soak.py", [], []),
    "sampling": ("sampling.py", [], [*ONE, "--batches", "1,16"]),
    "forward_backward": ("forward_backward.py", [], ONE),
    "long_tail": ("long_tail.py", [], [*ONE, "--short", "64", "--long", "256"]),
    "turns": ("turns.py", [], ONE),
    "step": ("step.py", [], ONE),
    "step-16x16x64": ("step.py", ["--tasks", "16", "--samples", "16", "--rounds", "2"], ONE),
    "step-8x8x256": ("step.py", ["--tokens", "256", "--rounds", "2"], ONE),
    "growth": ("growth.py", [], ["--axes", "samples", "--repeats", "1"]),
    "to_target": ("to_target.py", [], ["--every", "1", "--limit", "1"]),
}
TRUST: dict[str, tuple[str, list[str], list[str]]] = {
    "trust": ("trust.py", [], []),
    "trust_runs": ("trust_runs.py", [], []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    known = {**BENCHES, **TRUST}
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--quick", action="store_true")
    a = parser.parse_args()
    if unknown := set(a.names) - known.keys():
        parser.error(f"there is no bench '{min(unknown)}'; known: {', '.join(known)}")
    failed = []
    env = {**os.environ, **({"BENCH_RESULTS": tempfile.mkdtemp()} if a.quick else {})}
    for name in a.names or BENCHES:
        file, usual, quick = known[name]
        print(f"== {name}", flush=True)
        # of an option that is given twice, the later counts
        command = [sys.executable, file, *usual, *(quick if a.quick else [])]
        if subprocess.run(command, cwd=HERE, env=env).returncode:
            failed.append(name)
    if not a.quick:
        subprocess.run([sys.executable, "table.py"], cwd=HERE, check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
