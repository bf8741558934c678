"""Claims whose runs have tools: they are called in training and in every evaluation, and their facts are kept like others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from etude.claims.runs import job_of, perform
from etude.claims.settings import Claim, load
from etude.lab.problems import tool
from etude.tasks import load as task_set
from etude.types import Request

FEW = {
    "run.tasks_per_step": "2",
    "run.group_size": "4",
    "run.eval_problems": "4",
    "run.eval_samples": "1",
    "run.evals": "1",
    "run.preflight": "1",
}


def of(recipe: str) -> Claim:
    (claim,) = (c for c in load() if c.recipe == recipe and c.on == "lab")
    return claim


def test_the_runs_of_a_claim_call_their_tool(tmp_path: Path) -> None:
    claim = of("tool_rl")
    job = job_of(tmp_path, replace(claim, updates=1, changes={**claim.changes, **FEW}), claim.arm, 0)
    perform(job)
    facts = json.loads(Path(job.facts).read_text())
    assert facts["columns"]["tools/calls"][0] > 0.3
    assert facts["columns"]["score/correctness"][0] > -3, "some calls are right in part"
    assert facts["curve"][-1]["step"] == 1


@pytest.mark.parametrize("recipe", ["tool_rl", "spear"])
def test_both_arms_have_the_tool_and_the_bed_is_told_what_is_right(recipe: str) -> None:
    claim = of(recipe)
    for arm in (claim.arm, claim.base):
        assert claim.plan(arm, 0).changes["run.tools"] == "etude.lab.problems:tool"
    assert claim.gates["gain"] == 10, "the base must gain before anything is said"
    task = task_set("lab:level=3,calls=true").draw(Request(), 0, 0)
    (call,) = task.meta["calls"]
    assert tool(**call["arguments"]) == task.answer
    assert "calls" not in task_set("lab:level=3").draw(Request(), 0, 0).meta
