"""What the benches share: contestants in processes of their own that take turns, and results on disk."""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = Path(os.environ.get("BENCH_RESULTS", HERE / "results"))  # elsewhere for a quick look


def etude_environment() -> dict[str, str]:
    """The environment that the `etude` command gives itself."""
    from etude.launch import environment

    return environment()


class Contestant:
    """A child that answers each JSON line on its standard input with one JSON line: what its turn took. It
    computes nothing between turns, so contestants that take turns do not disturb each other."""

    def __init__(
        self, name: str, python: str, script: str, job: Any, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        begin = time.perf_counter()
        self.child = subprocess.Popen(
            [python, str(HERE / script), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(env or os.environ),
        )
        self.ready = self._answer()
        self.start_seconds = time.perf_counter() - begin

    def turn(self, **what: Any) -> dict[str, Any]:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(what) + "\n")
        self.child.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if line.startswith("RESULT "):
                return json.loads(line[7:])
        raise SystemExit(f"{self.name} ended before its turn was over (exit code {self.child.wait()})")

    def end(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        try:
            self.child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.child.kill()


def ours(script: str, job: Any, name: str = "etude") -> Contestant:
    return Contestant(name, sys.executable, script, job, etude_environment())


def serve(turn: Callable[..., dict[str, Any]], **facts: Any) -> None:
    """The child's side: says that it is ready, then one turn per line. Seconds and peak memory are measured here,
    alike for all; a turn that does more than what is measured reports its own `seconds`."""
    print("RESULT " + json.dumps(facts), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        found = turn(**json.loads(line))
        seconds = time.perf_counter() - begin
        print("RESULT " + json.dumps({"seconds": seconds, "peak_mb": peak_mb(), **found}), flush=True)


def peak_mb() -> float:
    """The largest resident size that this process and each of its descendants ever had, added up."""
    tree: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it ended meanwhile
        tree.setdefault(parent, []).append(int(place.name))
    total, waiting = 0, [os.getpid()]
    while waiting:
        one = waiting.pop()
        waiting += tree.get(one, [])
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


def middle(turns: list[dict[str, Any]], tokens: str = "tokens") -> dict[str, Any]:
    """Medians over a contestant's turns."""
    seconds = [t["seconds"] for t in turns]
    return {
        "seconds": statistics.median(seconds),
        "best_seconds": min(seconds),
        "all_seconds": seconds,
        "tokens_per_second": statistics.median(t[tokens] / t["seconds"] for t in turns),
        "peak_mb": max(t["peak_mb"] for t in turns),
    }


def shown(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Prints a turn as it comes in."""
    print(f"  {name}: " + ", ".join(f"{k} {_short(v)}" for k, v in found.items()), flush=True)
    return found


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def card() -> dict[str, Any]:
    from etude.machine import cpu_flags
    from etude.train.setup import card as etude_card

    found = {**etude_card(), "date": datetime.date.today().isoformat()}
    names = ("avx512f", "avx512_bf16", "amx_bf16")
    flags = cpu_flags()
    return {**found, "machine": {**found["machine"], "instructions": [n for n in names if n in flags]}}


def command() -> str:
    return " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def write_result(name: str, result: dict[str, Any]) -> None:
    """Writes bench/results/NAME.json, with the command and the machine."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps({"command": command(), **result, "card": card()}, indent=2) + "\n")
    os.replace(beside, path)
    ratio = f"ratio {result['ratio']:.2f} " if "ratio" in result else ""
    print(f"{ratio}-> {path}", flush=True)
