"""etude's side of bench/step.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from contestants import serve

from etude.train.config import Budget, Plan
from etude.train.loop import collect
from etude.train.setup import start

job = json.loads(sys.argv[1])
changes = {
    "run.tasks_per_step": job["tasks"],
    "run.attempts": job["attempts"],
    "run.max_tokens": job["max_tokens"],
    "run.eval_problems": 0,
    "update.lr": 1e-6,
}
plan = Plan("grpo", "smollm2", "chain_sum:max_terms=2,max_digits=2", Budget(1e9, "steps"), 0, changes)
run = start(plan, Path(job["place"]) / "etude")


def turn() -> dict[str, float]:
    """What `train.loop.train` does in a step, records included."""
    with run.clock("rollout"):
        groups, drawn = collect(run)
    signals = run.context.completed(run.credit(groups, run.context), run.objective.reads)
    learnt = run.learner.learn(run.objective, signals, run.context.step, 0.0)
    run.context.step += 1
    run.record(groups, drawn, signals, learnt)
    return {"tokens": float(sum(e.sampled.sum() for g in groups for e in g.episodes))}


serve(turn)
