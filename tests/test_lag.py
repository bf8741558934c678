"""Sampling one step ahead of training: the same numbers whoever samples and in whatever order, and after a kill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worlds_of_letters as letters
from etude.errors import UserError
from etude.report.run import RunDirectory
from etude.scale.place import Place
from etude.train.context import one_ahead
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.run import Run
from etude.train.setup import start
from etude.types import Signal
from scripted_engine import Engine, served

SMALL = {
    "run__lag": 1,
    "run__tasks_per_step": 4,
    "run__group_size": 4,
    "run__eval_problems": 0,
    "run__checkpoint_every": 2,
    "update__minibatches": 2,
}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in run.learner.policy.state_dict()["weights"].items()}


def trained(plan: Any, place: Path, on: Place | None = None) -> dict[str, torch.Tensor]:
    run = start(plan, place, letters.words(), place=on)
    train(run)
    found = weights(run)
    run.close()
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[n], b[n]) for n in a)


def episodes(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = RunDirectory.open(path).episodes().to_pylist()
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]


def test_every_batch_but_the_first_is_one_step_old(tmp_path: Path) -> None:
    trained(letters.plan(tmp_path, "grpo", 4, **SMALL), tmp_path / "run")
    metrics = RunDirectory.open(tmp_path / "run").metrics()
    assert [m["staleness"] for m in metrics] == [0, 1, 1, 1]
    assert metrics[0]["correction/weight"] == 1  # auto: truncated
    # A step without signal leaves the weights as they are, and the next batch is then as good as new.
    assert any(m["gap"] > 0 for m in metrics[1:])
    assert all((m["correction/weight"] != 1) == (m["gap"] > 0) for m in metrics[1:])


def test_a_run_that_was_cut_off_goes_on_with_what_it_had_sampled(tmp_path: Path) -> None:
    plan = letters.plan(tmp_path, "grpo", 4, **SMALL)
    whole = trained(plan, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-000004")
    run, said = resume(tmp_path / "cut", letters.words())
    assert not said
    assert run.ahead is not None
    train(run)
    assert same(weights(run), whole)
    run.close()
    assert episodes(tmp_path / "cut") == episodes(tmp_path / "whole")


def test_engines_sample_while_the_policy_learns_and_nothing_depends_on_who_is_first(tmp_path: Path) -> None:
    plan = letters.plan(tmp_path, "grpo", 4, **SMALL)
    here = trained(plan, tmp_path / "here")
    engines = [Engine(plan.model, jitter=0.05) for _ in range(2)]
    with served(*engines) as addresses:
        place = Place.of({"engines": {"address": list(addresses)}})
        there = trained(plan, tmp_path / "there", place)
    gap = max(float((here[n] - there[n]).abs().max()) for n in here)
    assert gap == 0
    assert [m["staleness"] for m in RunDirectory.open(tmp_path / "there").metrics()] == [0, 1, 1, 1]
    for name in ("reward", "length", "correction/weight"):
        found = [[m[name] for m in RunDirectory.open(tmp_path / p).metrics()] for p in ("here", "there")]
        assert found[0] == found[1]


def test_who_computes_with_the_policy_while_it_collects_is_refused(tmp_path: Path) -> None:
    run = start(letters.plan(tmp_path, "score", 2, **SMALL), tmp_path / "run", letters.words())
    ahead = one_ahead(run.context)
    assert ahead.step == run.context.step + 1
    from etude.train.collect import collect

    _, drawn = collect(run)
    signals = [Signal(e, np.zeros(len(e.tokens), np.float32)) for g in drawn for e in g.episodes]
    frozen = run.context.auxiliary["reference"]
    assert len(ahead.rows(signals, lambda out: out.logp, policy=frozen)) == len(signals)
    with pytest.raises(UserError, match=r"computes with the policy while it collects.*use run.lag=0"):
        ahead.rows(signals, lambda out: out.logp)
    run.close()


def test_a_run_of_one_step_samples_nothing_ahead(tmp_path: Path) -> None:
    trained(letters.plan(tmp_path, "grpo", 1, **SMALL), tmp_path / "run")
    metrics = RunDirectory.open(tmp_path / "run").metrics()
    assert metrics[0]["groups"] * 4 * 2 >= metrics[0]["tokens/generated"] > 0
