"""The run of bench/soak.py."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from contestants import serve

from etude.train.config import Budget, Plan
from etude.train.loop import train
from etude.train.setup import start

job = json.loads(sys.argv[1])
changes = {"run.eval_problems": "0", "run.patience": "1000000", "run.checkpoint_every": "100", **job["set"]}
plan = Plan("grpo", job["model"], job["tasks"], Budget(job["steps"], "steps"), 0, changes)
run = start(plan, Path(job["place"]) / "run")


def turn() -> dict[str, Any]:
    peaks: list[float] = []
    run.on_step = lambda *_: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    train(run)
    return {"peaks_mb": peaks}


serve(turn)
