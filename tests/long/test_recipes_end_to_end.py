"""Every recipe trains the embedded model end to end, for a few steps, and the laboratory is what it says."""

import shutil
from itertools import pairwise

import pytest

from etude.methods import catalogue
from etude.train.config import Budget, Plan
from etude.train.loop import train
from etude.train.setup import start

pytestmark = pytest.mark.long
CHANGES = {
    "run.tasks_per_step": "2",
    "run.group_size": "4",
    "run.max_tokens": "8",
    "run.preflight": "1",
    "run.eval_problems": "4",
    "run.eval_samples": "1",
    "run.patience": "100",
}
OWN = {
    "t1": {"run.group_size": "4"},
    "relift": {"curriculum.size": "2"},
    "distill": {"run.teacher": "smollm2"},
}


@pytest.mark.parametrize("name", list(catalogue()))
def test_runs_end_to_end(name, tmp_path):
    """Three steps; some of them may find nothing to learn from, none may fail."""
    recipe = catalogue()[name]
    tasks = "chain_sum:max_terms=2,max_digits=1"
    if {"hints", "reference", "feedback", "steps"} & set(recipe.all_needs):
        tasks = "lab:kind=sum,level=0,feedback=hint"
    if recipe.family == "curriculum":
        tasks = "lab:kind=sum+reverse,feedback=hint"  # something to choose from
    plan = Plan(name, "smollm2", tasks, Budget(3, "steps"), 0, {**CHANGES, **OWN.get(name, {})})
    run = start(plan, tmp_path / "run")
    try:
        run.evaluate("before")
        train(run)
        result = run.evaluate("last")
        metrics = run.directory.metrics()
    finally:
        run.close()
        shutil.rmtree(tmp_path)  # a checkpoint holds 1.6 GB, and there are as many as recipes
    assert len(metrics) == 3
    assert all(m["errors"] == 0 for m in metrics)
    assert 0 <= result.mean.mean <= 1


def test_the_laboratory_is_half_taught_and_its_levels_rise():
    from etude.lab.tasks import MAX_TOKENS
    from etude.train.measure import Exam, evaluate_model, exam_tasks

    name, held = exam_tasks("lab", None, 300)
    found = evaluate_model("lab", Exam(name, held, 8, 0, changes={"max_tokens": str(MAX_TOKENS)}))
    assert 0.2 < found.mean.mean < 0.5
    levels = [found.levels[level].mean for level in sorted(found.levels)]
    assert len(levels) == 5
    assert all(easy > hard for easy, hard in pairwise(levels))
    assert all(interval.mean < 0.7 for interval in found.kinds.values())
    assert all(interval.mean > 0.05 for interval in found.kinds.values())
