"""Which task and settings make a good demo: `python bench/demo.py [NAME ...] [--steps N]`, alone on the machine.

A demo must take less than ten minutes on two cores without AMX, end far above its start, leave a page without findings, and show
what is special here. Each candidate is trained once (seed 0) and a line says what came out; `etude report runs/demo-NAME` has
the page. The model is examined with single attempts, and with a second one after feedback.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import etude

SUMS = "chain_sum:max_terms=2,max_digits=2"
SIZE = {
    "run.tasks_per_step": 16,
    "run.group_size": 8,
    "run.eval_problems": 100,
    "run.eval_samples": 8,
    "run.evals": 3,
}
ROOM = {**SIZE, "update.lr": 1e-5, "run.max_tokens": 24}
AGAIN = {"rollout.attempts": 2, "rollout.told": "", "filter.keep_share": 1.0}
CANDIDATES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    # name: recipe, tasks, steps, settings
    "today": ("grpo", SUMS, 120, {**SIZE, "update.lr": 1e-5, "run.max_tokens": 12}),
    "room": ("grpo", SUMS, 80, ROOM),
    "more-room": ("grpo", SUMS, 80, {**ROOM, "run.max_tokens": 32}),
    "gentle": ("grpo", SUMS, 80, {**ROOM, "update.lr": 5e-6}),
    "pulled": ("grpo", SUMS, 80, {**ROOM, "objective.kl_weight": 0.02}),
    "sentence": ("grpo", SUMS, 80, {**ROOM, "run.stop": ["\n", ". "]}),
    "feedback": ("ufo", f"{SUMS},feedback=hint", 40, {**ROOM, **AGAIN}),
    "curriculum": ("grpo+sec", "chain_sum:level=[0;1;2]", 80, ROOM),
}


def tried(name: str, steps: int | None) -> str:
    recipe, tasks, whole, settings = CANDIDATES[name]
    begin = time.perf_counter()
    out = Path("runs") / f"demo-{name}"
    run = etude.train(
        recipe, "smollm2", tasks, steps or whole, settings=settings, out=out, overwrite=True, progress=False
    )
    minutes = (time.perf_counter() - begin) / 60
    first, last = run.metrics[0], run.metrics[-1]
    assert run.before is not None
    assert run.after is not None
    exam = {"max_tokens": settings["run.max_tokens"]}
    asked = tasks if "feedback=" in tasks else f"{tasks},feedback=hint"
    second = [
        etude.evaluate(m, asked, problems=50, samples=4, settings=exam, again="feedback").mean.mean
        for m in ("smollm2", run)
    ]
    found = [f["name"] for f in run.directory.findings()]
    return (
        f"{name:12} {100 * run.before.mean.mean:5.1f} -> {100 * run.after.mean.mean:5.1f} %   after feedback "
        f"{100 * second[0]:5.1f} -> {100 * second[1]:5.1f} %   {last['seconds'] / 60:.1f} min of training, {minutes:.1f} in all   "
        f"cut off {100 * first['truncated']:.0f} -> {100 * last['truncated']:.0f} %   "
        f"entropy {first['entropy']:.2f} -> {last['entropy']:.2f}   findings: {', '.join(found) or 'none'}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CANDIDATES))
    parser.add_argument("--steps", type=int)
    told = parser.parse_args()
    for one in told.names:
        print(tried(one, told.steps), flush=True)
