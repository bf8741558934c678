"""A reward model that is hacked: answers grow, and the reward with them.

    python examples/reward_hacking.py [DIRECTORY [STEPS]]

Whoever compared the answers liked thoroughness: of two right solutions the one that goes over its lines again was preferred. The
reward model learns that from 160 pairs. A policy that trains against it writes longer and longer, until the limit cuts its answers
off. The task's own check takes no part in the reward: it is recorded beside it, as a second opinion.
"""

import json
import sys
from pathlib import Path

import etude
from etude.tasks import load
from etude.types import Request

TASKS = "lab:kind=sum,level=1"
PAIRS = 200


def pairs(place: Path) -> None:
    """Right solutions, and the same with their lines again under "Check:"."""
    drawn = (load(TASKS).draw(Request(), index, seed=1) for index in range(PAIRS))
    rows = []
    for task in drawn:
        *lines, answer = task.reference.splitlines()
        again = "\n".join([*lines, "Check:", *lines, answer])
        rows.append({"prompt": task.prompt[-1].content, "chosen": again, "rejected": task.reference})
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(place: Path, steps: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    pairs(place / "pairs.jsonl")
    learned = etude.train(
        "reward_model",
        "lab",
        f"{place / 'pairs.jsonl'}:check=pairs",
        budget=min(20, steps),
        settings={"update.lr": 3e-4, "update.head_lr": 1e-2, "run.tasks_per_step": 16},
        out=place / "reward_model",
        overwrite=True,
        progress=False,
    )
    hacked = etude.train(
        "grpo",
        "lab",
        TASKS,
        budget=steps,
        settings={
            "update.lr": 1e-4,
            "run.tasks_per_step": 8,
            "run.group_size": 8,
            "run.max_tokens": 96,
            "run.eval_problems": 50,
            "run.eval_samples": 2,
        },
        reward=[f"model:{learned.path},name=liked", "check,weight=0"],
        out=place / "hacked",
        overwrite=True,
        progress=False,
    )
    for step in (hacked.metrics[0], hacked.metrics[-1]):
        print(
            {
                name: round(step[name], 3)
                for name in ("step", "reward", "score/watched/check", "length", "truncated")
            }
        )
    for finding in hacked.directory.findings():
        print(f"step {finding['step']}: {finding['name']}: {finding['message']}")


if __name__ == "__main__":
    place, steps = [*sys.argv[1:], *["runs/reward_hacking", "60"][len(sys.argv) - 1 :]]
    main(Path(place), int(steps))
