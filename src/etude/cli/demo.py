"""The plan of `etude demo`: chosen by measuring (`bench/demo.py`, LOG.md)."""

from __future__ import annotations

from pathlib import Path

from etude.train.config import Budget, Plan

TASKS = "chain_sum:max_terms=2,max_digits=2"
STEPS = 80
EXAMPLES = Path(__file__).with_name("demo_examples.json")
"""Two solved sums, shown before every question: they settle the form of an answer, so that what is learned is arithmetic."""


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
            "run.max_tokens": "24",
            "run.examples": str(EXAMPLES),
            "run.shots": "2",
            "run.eval_problems": "100",
            "run.eval_samples": "8",
            "run.evals": "3",
        },
    )
