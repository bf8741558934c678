"""Seconds from the start of the program to a held-out accuracy, on the demo's task: etude against TRL.

    python bench/to_target.py [--target 0.4] [--every 5] [--limit 20]

Same model, tasks in the same order, rule of reward, 16 tasks x 8 samples, up to 12 tokens, AdamW at 1e-5, clipping and
sampling settings; each trainer's own GRPO otherwise. The clock counts starting up (imports, weights, first step and its
page faults included) and training steps. It stops while weights are saved and one examiner, the same for both, measures
accuracy on problems that are never trained on; contestants take turns of `--every` steps. Each stops at the first
examination at or above the target, or after `--limit` minutes of its own clock. Where only etude got there, `ratio` is a
lower bound: TRL's seconds so far / etude's seconds, and `bound` says so. Writes bench/results/to_target.json.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from contestants import Contestant, ours, shown, write_result
from peers import peer_python
from step import TASKS, write_prompts

from etude.models.embedded import directory

SHAPE: dict[str, Any] = {"tasks": 16, "samples": 8, "tokens": 12, "lr": 1e-5}
PEER_ROWS = 32  # TRL trains on at once: 128 take 17 GB, too much beside the others on a machine of 24
MOST_STEPS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", type=float, default=0.4, help="held-out accuracy")
    parser.add_argument("--every", type=int, default=5, help="steps between examinations")
    parser.add_argument("--limit", type=float, default=20.0, help="minutes for each contestant")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--attempts", type=int, default=4, help="per held-out problem")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        job = {**SHAPE, "peer_rows": PEER_ROWS, "place": place, "model": str(directory()), "spec": TASKS}
        job["prompts"] = write_prompts(Path(place), TASKS, range(MOST_STEPS * SHAPE["tasks"]))
        exam = {"spec": TASKS, "problems": a.problems, "attempts": a.attempts, "tokens": SHAPE["tokens"]}
        examiner = ours("examine.py", exam, "examiner")
        racers = [
            Racer(ours("step_etude.py", job), a, Path(place)),
            Racer(Contestant("TRL 1.16", peer_python("trl"), "step_trl.py", job), a, Path(place)),
        ]
        start = shown("before", examiner.turn(model=str(directory())))["accuracy"]
        while any(r.running for r in racers):
            for racer in [r for r in racers if r.running]:
                racer.go_on(examiner)
        for racer in racers:
            racer.child.end()
        examiner.end()
    write_result("to_target", _summary(a, start, *racers))


class Racer:
    def __init__(self, child: Contestant, a: argparse.Namespace, place: Path) -> None:
        self.child, self.a, self.place = child, a, place
        self.seconds = child.start_seconds
        self.curve: list[dict[str, float]] = []
        self.peak_mb = 0.0

    @property
    def reached(self) -> bool:
        return bool(self.curve) and self.curve[-1]["accuracy"] >= self.a.target

    @property
    def running(self) -> bool:
        spent = self.seconds >= 60 * self.a.limit or self.steps + self.a.every > MOST_STEPS
        return not self.reached and not spent

    @property
    def steps(self) -> int:
        return int(sum(p["steps"] for p in self.curve))

    def go_on(self, examiner: Contestant) -> None:
        weights = self.place / "weights"
        found = self.child.turn(steps=self.a.every, save=str(weights))
        self.seconds += found["seconds"]
        self.peak_mb = found["peak_mb"]
        accuracy = examiner.turn(model=str(weights))["accuracy"]
        shutil.rmtree(weights)
        point = {
            "at_seconds": self.seconds,
            "accuracy": accuracy,
            "training_accuracy": found["correct"] / found["samples"],
            "steps": found["steps"],
            "tokens": found["tokens"],
        }
        self.curve.append(point)
        shown(f"{self.child.name} after {self.steps} steps", point)

    def facts(self) -> dict[str, Any]:
        steps = self.seconds - self.child.start_seconds
        return {
            "seconds": self.seconds,
            "reached": self.reached,
            "steps": self.steps,
            "start_seconds": self.child.start_seconds,
            "tokens_per_second": sum(p["tokens"] for p in self.curve) / steps,
            "peak_mb": self.peak_mb,
            "curve": self.curve,
        }


def _summary(a: argparse.Namespace, start: float, mine: Racer, theirs: Racer) -> dict[str, Any]:
    best, trl = mine.facts(), theirs.facts()
    result = {
        "what": f"seconds from start to {a.target:.0%} held-out accuracy, {TASKS}",
        "target": a.target,
        "accuracy_before": start,
        "problems": a.problems,
        "attempts": a.attempts,
        "etude": best,
        "peer": {"name": "TRL 1.16 GRPOTrainer", **trl},
    }
    if not best["reached"]:
        print(f"etude did not reach {a.target:.0%} in {a.limit:g} minutes")
        return result
    bound = not trl["reached"]
    print("TRL did not get there: the ratio is a lower bound" if bound else "both got there")
    return {**result, "ratio": trl["seconds"] / best["seconds"], "bound": bound}


if __name__ == "__main__":
    main()
