"""What a curriculum costs: seconds in its `next`, `observe` and `report`, as a share of the step's.

    python bench/curriculum_overhead.py [--steps 22] [NAME ...]

GRPO on the laboratory's model and tasks (25 arms, 16 tasks of 8 attempts a step), one run per curriculum, in one process
and on one thread; the first two steps of each run are left out. Where only some cases are asked for, they are added to those
that bench/results/curriculum_overhead.json has from the same commit. The
share is the sum of the curriculum's seconds over the sum of the steps' seconds, so that what is done only now and then is
charged at its rate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from contestants import RESULTS, card, shown, write_result

from etude.train.config import Budget, Plan
from etude.train.loop import train
from etude.train.setup import start

WARM = 2  # steps left out
OFTEN = {"curriculum.every": "1"}  # looks at every step, to have them among the steps that are measured
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "none": ("grpo", {}),
    "uniform": ("grpo+uniform", {}),
    "mixture": ("grpo+mixture", {}),
    "easy_to_hard": ("grpo+easy_to_hard", {}),
    "target_difficulty": ("grpo+target_difficulty", {}),
    "sec": ("grpo+sec", {}),
    "pudf, a look every step": ("grpo+pudf", {**OFTEN, "curriculum.crowd": "2"}),
    "skill_it, a look every step": ("grpo+skill_it", OFTEN),
    "skill_it by solutions, every 10 steps": ("grpo+skill_it", {"curriculum.loss": "nll"}),
    "exp3_flad": ("grpo+exp3_flad", {}),
    "exp3_flad, every step": ("grpo+exp3_flad", OFTEN),
    "exp3_flad, every step, all episodes": ("grpo+exp3_flad", {**OFTEN, "curriculum.episodes": "0"}),
    "ucb1_flad": ("grpo+ucb1_flad", {}),
}


class Timed:
    """A curriculum whose every call is timed: `spent[step]` in seconds."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.spent = inner, [0.0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _timed(self, call: Any, *args: Any) -> Any:
        begin = time.perf_counter()
        found = call(*args)
        self.spent[-1] += time.perf_counter() - begin
        return found

    def next(self, n: int, context: Any) -> Any:
        return self._timed(self.inner.next, n, context)

    def observe(self, groups: Any, signals: Any, context: Any) -> None:
        self._timed(self.inner.observe, groups, signals, context)

    def report(self) -> Any:
        found = self._timed(self.inner.report)
        self.spent.append(0.0)  # the last call of a step
        return found


def measure(recipe: str, changes: dict[str, str], steps: int) -> dict[str, float]:
    own = {
        "run.eval_problems": "0",
        "run.max_tokens": "44",
        "run.checkpoint_every": "100000",
        "run.rescore_every": "0",
    }
    with tempfile.TemporaryDirectory() as place:
        plan = Plan(recipe, "lab", "lab", Budget(steps, "steps"), 0, {**own, **changes})
        run = start(plan, Path(place) / "run")
        timed = run.curriculum = Timed(run.curriculum)
        train(run)
        run.close()
        metrics = run.directory.metrics()
    marks = [m["seconds"] for m in metrics]
    seconds = marks[-1] - marks[WARM - 1]
    spent = sum(timed.spent[WARM:steps])
    return {
        "share": spent / seconds,
        "step_seconds": seconds / (steps - WARM),
        "ms": 1e3 * spent / (steps - WARM),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(CASES))
    parser.add_argument("--steps", type=int, default=22)
    a = parser.parse_args()
    path = RESULTS / "curriculum_overhead.json"
    old = json.loads(path.read_text()) if a.names and path.exists() else {}
    found = old.get("cases", {}) if old.get("card", {}).get("commit") == card()["commit"] else {}
    torch.set_num_threads(1)
    for name in a.names or CASES:
        recipe, changes = CASES[name]
        found[name] = {**measure(recipe, changes, a.steps), "recipe": recipe, "settings": changes}
        shown(name, {k: v for k, v in found[name].items() if isinstance(v, float)})
    what = "seconds in next, observe and report of a curriculum, as a share of the step's; limit 0.02"
    write_result("curriculum_overhead", {"what": what, "steps": a.steps - WARM, "cases": found})


if __name__ == "__main__":
    main()
