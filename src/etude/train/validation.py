"""Choosing by problems of their own: which weights are kept, and when a run has reached what it was for.

The validation problems are trained on never and examined never: what was chosen on them is measured on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.evaluate.intervals import clustered
from etude.evaluate.result import BEST
from etude.tasks import TaskSet, check_disjoint
from etude.train import checkpoint
from etude.train.examine import attempted
from etude.train.settings import RunSettings, goal
from etude.types import Task

if TYPE_CHECKING:
    from etude.train.run import Run

BEST_KIND = "best"  # of a checkpoint


def set_aside(tasks: TaskSet, holdout: Sequence[Task], settings: RunSettings) -> list[Task]:
    """The validation problems of a run that has any. They share none with the held-out ones: UserError where they would."""
    if not settings.validates:
        return []
    if not holdout and settings.eval_problems:
        raise UserError("there are no held-out problems, so nothing could measure what was chosen")
    found = tasks.validation(settings.validation_problems)
    check_disjoint(found, holdout)
    return found


def validate_start(run: Run) -> None:
    """The weights that a run begins with are the first to beat; and the present ones, where the best are lost."""
    lost = run.settings.keep == "best" and run.best is None
    if run.validation and (run.context.step == 0 or lost):
        validate(run)


def validate(run: Run) -> dict[str, float]:
    """Accuracy on the validation problems now, as metrics. Keeps the best weights so far, and ends the run where its goal is
    reached."""
    with run.uncharged():
        groups = attempted(run, run.generator, run.validation)
    right = [[e.correct for e in g.episodes] for g in groups if g.episodes]
    found = clustered([sum(r) / len(r) for r in right], [len(r) for r in right])
    step, accuracy = run.context.step, found.mean
    if run.settings.keep == "best" and (run.best is None or accuracy > run.best["accuracy"]):
        weights = {"policy": run.learner.policy.state_dict()}
        checkpoint.save(run.directory.path / "checkpoints", step, weights, keep=None, kind=BEST_KIND)
        run.best = {**run.spent_so_far(), "accuracy": accuracy}
    if run.settings.stop_when and accuracy > (wanted := goal(run.settings.stop_when)):
        run.ended = f"accuracy {accuracy:.1%} on {len(run.validation)} validation problems is above {wanted:.1%} at step {step}"
    return {"validation/accuracy": accuracy, "validation/low": found.low, "validation/high": found.high}


def choose(run: Run) -> tuple[str, dict[str, Any]]:
    """Puts the weights in place that a finished run keeps. Returns the rule by which they were chosen, and what had been
    spent when they were made."""
    if run.settings.keep != "best" or run.best is None:
        return "last", run.spent_so_far()
    step = run.best["step"]
    _, state, _ = checkpoint.load(run.directory.path / "checkpoints", at=step, kind=BEST_KIND)
    meter = run.learner.policy.meter.state_dict()
    run.learner.policy.load_state_dict(state["policy"])
    run.learner.policy.meter.load_state_dict(meter)
    spent = {k: v for k, v in run.best.items() if k != "accuracy"}
    return f"{BEST}{len(run.validation)} validation problems", spent
