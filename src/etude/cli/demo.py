"""The plan of `etude demo`: chosen by measuring (`bench/demo.py`, LOG.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


PROBLEMS, SAMPLES = 50, 4
"""How second attempts are examined."""


def second_attempts(run: Path) -> dict[str, dict[str, Any]]:
    """{"before" and "after" training: an examination in which a wrong answer is told so, with a hint, and tried again}. Training
    made first attempts only."""
    from etude.train.session import evaluate

    settings = {name.removeprefix("run."): value for name, value in plan().changes.items()}
    settings = {name: settings[name] for name in ("max_tokens", "examples", "shots")}
    models: dict[str, str | Path] = {"before": plan().model, "after": run}
    return {
        when: evaluate(
            model,
            f"{TASKS},feedback=hint",
            problems=PROBLEMS,
            samples=SAMPLES,
            settings=settings,
            again="feedback",
        ).to_dict()
        for when, model in models.items()
    }


ROWS = {"first": "first attempt", "second": "second attempt"}


def screen(found: dict[str, dict[str, Any]]) -> str:
    """What first attempts came to, and what they and the second ones did."""
    lines = [f"and where a wrong answer gets a hint and a second attempt ({PROBLEMS} problems x {SAMPLES}):"]
    for name, says in ROWS.items():
        shares = (found[when]["attempts"].get(name, found[when]["mean"]) for when in ("before", "after"))
        lines.append(f"  {says:<18}" + "  ->  ".join(f"{100 * share:.1f}%" for share in shares))
    return "\n".join(lines)
