"""One GRPO step of etude and of TRL's GRPOTrainer, in one run, taking turns.

    python bench/step.py [--rounds 3] [--tasks 8] [--attempts 8] [--max-tokens 64]

The same model (the embedded SmolLM2-135M-Instruct), prompts, reward, batch, optimiser (AdamW) and sampling
settings. Each contestant runs in a process of its own that stays alive and is told when to take a step, so that
neither computes while the other is measured. TRL lives in an environment of its own (`bench/peers.py`).
Writes bench/results/step.json; `ratio` = TRL's median seconds / etude's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from contestants import Contestant, card, etude_environment, peer_python, write_result

from etude.policy.embedded import directory

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--attempts", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--name", default="step")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        job = {**vars(a), "place": place, "model": str(directory())}
        ours = Contestant(
            "etude", [sys.executable, str(HERE / "step_etude.py"), json.dumps(job)], etude_environment()
        )
        theirs = Contestant(
            "TRL 1.16", [peer_python("trl"), str(HERE / "step_trl.py"), json.dumps(job)], None
        )
        for name in (ours, theirs):  # the first step touches memory for the first time
            print(name.name, "first step", name.turn(), flush=True)
        turns: dict[str, list[dict]] = {"etude": [], "TRL 1.16": []}
        for number in range(a.rounds):
            for contestant in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                turns[contestant.name].append(contestant.turn())
                print(contestant.name, turns[contestant.name][-1], flush=True)
        ours.end()
        theirs.end()
    write_result(a.name, _summary(a, turns))


def _summary(a: argparse.Namespace, turns: dict[str, list[dict]]) -> dict:
    def of(name: str) -> dict:
        seconds = [t["seconds"] for t in turns[name]]
        return {
            "seconds": statistics.median(seconds),
            "best_seconds": min(seconds),
            "all_seconds": seconds,
            "tokens_per_second": statistics.median(t["tokens"] / t["seconds"] for t in turns[name]),
            "mean_length": statistics.mean(t["tokens"] / (a.tasks * a.attempts) for t in turns[name]),
            "peak_mb": max(t["peak_mb"] for t in turns[name]),
        }

    ours, theirs = of("etude"), of("TRL 1.16")
    return {
        "what": f"one GRPO step, {a.tasks} tasks x {a.attempts} attempts, up to {a.max_tokens} new tokens",
        "command": " ".join(["python", *sys.argv]),
        "etude": ours,
        "peer": {"name": "TRL 1.16 GRPOTrainer", **theirs},
        "ratio": theirs["seconds"] / ours["seconds"],
        "memory_ratio": ours["peak_mb"] / theirs["peak_mb"],
        "card": card(),
    }


if __name__ == "__main__":
    main()
