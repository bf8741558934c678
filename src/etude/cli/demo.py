"""The plan of `etude demo`: chosen by measuring, see LOG.md."""

from __future__ import annotations

from etude.train.config import Budget, Plan

TASKS = "chain_sum:max_terms=2,max_digits=2"
STEPS = 120


def plan(steps: int | None = None) -> Plan:
    return Plan(
        recipe="grpo",
        model="smollm2",
        tasks=TASKS,
        budget=Budget(steps or STEPS, "steps"),
        seed=0,
        changes={
            "update.lr": "1e-5",
            "run.tasks_per_step": "16",
            "run.group_size": "8",
            "run.max_tokens": "12",
            "run.eval_problems": "100",
            "run.eval_samples": "8",
            "run.evals": "3",
        },
    )
