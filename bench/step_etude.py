"""etude's side of bench/step.py and bench/to_target.py: the steps of a run, one turn at a time."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from contestants import serve

from etude.train.config import Budget, Plan
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Group

job = json.loads(sys.argv[1])
changes = {
    "run.tasks_per_step": job["tasks"],
    "run.group_size": job["samples"],
    "run.max_tokens": job["tokens"],
    "run.eval_problems": 0,
    "run.patience": 1_000_000,
    "update.lr": job["lr"],
}
plan = Plan("grpo", "smollm2", job["spec"], Budget(1e9, "steps"), 0, changes)
run = start(plan, Path(job["place"]) / "etude")
lazy = run.objective
eager = replace(lazy, terms=tuple(replace(term, proportional=False) for term in lazy.terms))


total: Counter[str] = Counter()
record, outputs = run.record, run.learner.policy.outputs


def recorded(groups: Sequence[Group], *rest: Any) -> None:
    """Records the step as ever, counts it, and ends the loop after the last step of a turn."""
    record(groups, *rest)
    trained = groups if run.objective is eager else [g for g in groups if g.mixed]
    correct = sum(e.correct for g in groups for e in g.episodes)
    total.update({"steps": 1.0, "correct": float(correct)})
    total.update({**sizes(groups), **sizes(trained, "trained_")})
    run.ended = "the turn is over" if total["steps"] == wanted["steps"] else ""


def watched(*args: Any, **kwargs: Any) -> Any:
    """Notes whether what sampling computed served the gradient as well."""
    out = outputs(*args, **kwargs)
    if torch.is_grad_enabled():
        total.update({"passes": 1.0, "replayed": float(getattr(out, "replayed", False))})
    return out


wanted = {"steps": 0}
run.record = recorded
run.checkpoint = lambda: None
run.learner.policy.outputs = watched


def sizes(groups: Sequence[Group], prefix: str = "") -> dict[str, float]:
    """Tokens of prompts (once a group) and of completions, and the number of completions."""
    episodes = [e for g in groups for e in g.episodes]
    return {
        f"{prefix}prompt": float(sum(int((~g.episodes[0].sampled).sum()) for g in groups if g.episodes)),
        f"{prefix}tokens": float(sum(int(e.sampled.sum()) for e in episodes)),
        f"{prefix}samples": float(len(episodes)),
    }


def turn(steps: int = 1, every_group: bool = False, save: str = "") -> dict[str, Any]:
    """Steps of the loop itself. `every_group`: also groups that teach nothing are trained on. `save`: a directory for
    the weights; writing it is not counted."""
    total.clear()
    wanted["steps"] = steps
    run.objective = eager if every_group else lazy
    run.ended = ""
    begin = time.perf_counter()
    train(run)
    seconds = time.perf_counter() - begin
    if save:
        run.learner.policy.save(save)
    return {"seconds": seconds, **total}


serve(turn)
