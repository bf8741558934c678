"""A run that goes on otherwise than it began says so; one that goes on as it was is the run that was never stopped."""

from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.errors import UserError
from etude.report.page import run_data
from etude.report.run import RunDirectory
from etude.report.turns import chosen, screen
from etude.train import checkpoint
from etude.train.config import Budget
from etude.train.loop import train
from etude.train.reopen import Change, resume
from etude.train.setup import start
from test_resume import facts, same_weights

SMALL = {"run__tasks_per_step": 4, "run__group_size": 4, "run__eval_problems": 4, "run__checkpoint_every": 2}


def begun(place: Path, steps: int = 4, name: str = "run", **more) -> Path:
    run = start(letters.plan(place, "grpo", steps, **{**SMALL, **more}), place / name, letters.words())
    run.checkpoint()
    train(run)
    run.close()
    return place / name


def again(path: Path, **change) -> tuple[list[str], Path]:
    run, warnings = resume(path, letters.words(), change=Change(**change))
    train(run)
    run.close()
    return warnings, path


def test_a_finished_run_that_is_lengthened_is_the_longer_run(tmp_path: Path) -> None:
    whole = begun(tmp_path, 8, "whole")
    warnings, path = again(begun(tmp_path, 4), budget="+4-steps")
    assert warnings == ["from step 4 on this is a branch of the run: budget 4 steps -> 8 steps"]
    assert facts(whole) == facts(path)
    assert same_weights(whole, path)
    assert RunDirectory.open(path).config["plan"]["budget"] == {"amount": 8.0, "unit": "steps"}
    assert again(path)[0] == [], "the next time it is what it is"


def test_what_was_changed_is_recorded_with_its_step_and_holds(tmp_path: Path) -> None:
    whole = begun(tmp_path, 8, "whole")
    _, path = again(
        begun(tmp_path, 4), budget="8-steps", settings={"update.lr": "1e-4", "objective.clip_low": "0.1"}
    )
    (entry,) = RunDirectory.open(path).config["history"]
    assert entry["step"] == 4
    assert entry["changed"] == {
        "update.lr": [0.002, 0.0001],
        "objective.clip_low": [0.2, 0.1],
        "budget": ["4 steps", "8 steps"],
    }
    before, after = facts(whole), facts(path)
    assert before[0][:4] == after[0][:4], "exact up to the change"
    assert before[0][5:] != after[0][5:]
    assert not same_weights(whole, path)
    again_, warnings = resume(path, letters.words())
    again_.close()
    assert warnings == []
    assert {g["base_lr"] for g in again_.learner.optimiser().param_groups} == {1e-4}
    shown = run_data(RunDirectory.open(path), 1000)
    assert shown["config"]["history"] == [entry]
    late, early = chosen(path, "5-0"), chosen(path, "4-0")
    assert "since step 4: update.lr 0.002 -> 0.0001, objective.clip_low 0.2 -> 0.1" in screen(late, [entry])
    assert "since step" not in screen(early, [entry])


def test_the_optimiser_keeps_its_state_and_takes_the_new_rate(tmp_path: Path) -> None:
    path = begun(tmp_path, 4)
    _, held, _ = checkpoint.load(path / "checkpoints")
    run, _ = resume(
        path, letters.words(), change=Change("+2-steps", {"update.lr": "1e-5", "update.beta1": "0.5"})
    )
    (group,) = run.learner.optimiser().param_groups
    assert (group["base_lr"], group["betas"]) == (1e-5, (0.5, 0.999))
    moments = run.learner.optimiser().state_dict()["state"]
    assert all(
        (moments[i]["exp_avg"] == s["exp_avg"]).all()
        for i, s in held["learner"]["optimisers"][""]["state"].items()
    )
    run.close()


def test_back_to_an_earlier_checkpoint(tmp_path: Path) -> None:
    whole = begun(tmp_path, 4, "whole")
    path = begun(tmp_path, 4)
    assert checkpoint.steps(path / "checkpoints") == [2, 4]
    with pytest.raises(UserError, match=r"no checkpoint of step 3 in .*; there are those of steps 2, 4"):
        resume(path, letters.words(), change=Change(at=3))
    assert again(path, at=2)[0] == []
    assert facts(path) == facts(whole)
    again(path, at=2, settings={"update.lr": "1e-5"})
    assert facts(path)[0][:2] == facts(whole)[0][:2]
    assert not same_weights(whole, path)
    assert [e["step"] for e in RunDirectory.open(path).config["history"]] == [2]


def test_a_change_that_a_damaged_checkpoint_takes_back_is_told(tmp_path: Path) -> None:
    path = begun(tmp_path, 4)
    run, _ = resume(path, letters.words(), change=Change("8-steps"))
    run.close()
    (path / "checkpoints" / "step-000004" / "state.pt").write_bytes(b"")
    run, warnings = resume(path, letters.words())
    run.close()
    assert run.context.step == 2
    assert warnings[1:] == ["what was changed at step 4 holds from step 2 on"]
    assert [e["step"] for e in RunDirectory.open(path).config["history"]] == [2]


def test_evaluations_stay_what_they_were(tmp_path: Path) -> None:
    path = begun(tmp_path, 2)
    run, warnings = resume(path, letters.words(), change=Change("+2-steps", {"run.temperature": "0.5"}))
    run.close()
    assert run.settings.temperature == 0.5
    assert run.settings.exam.temperature == 1.0
    assert "run.eval_temperature None -> 1.0" in warnings[0]


WRONG = {
    "spent": ({"budget": "3-steps"}, r"has spent 4 steps already; a budget of 3 steps ends it"),
    "finished": (
        {"settings": {"update.lr": "1e-4"}},
        r"spent its budget of 4 steps at step 4; lengthen it as well",
    ),
    "weights": (
        {"settings": {"run.lora": "4"}},
        r"run\.lora cannot change within a run; start a new run from its model",
    ),
    "exam": ({"settings": {"run.eval_samples": "9"}}, r"run\.eval_samples cannot change within a run"),
    "no such": ({"settings": {"update.rl": "1"}}, r"no setting 'update\.rl'"),
    "apart": ({"settings": {"run.keep": "best"}}, r"need problems that were set aside at the start"),
    "model": ({"model": "nowhere"}, r"no model directory 'nowhere'"),
    "unit": ({"budget": "+4"}, r"a budget looks like 10m"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_cannot_be_changed_is_refused_and_leaves_the_run_as_it_was(case: str, tmp_path: Path) -> None:
    path = begun(tmp_path, 4)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}
    change, said = WRONG[case]
    with pytest.raises(UserError, match=said):
        resume(path, letters.words(), change=Change(**change))
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_a_rate_that_follows_the_budget_is_told(tmp_path: Path) -> None:
    path = begun(tmp_path, 4, update__decay="linear")
    run, warnings = resume(path, letters.words(), change=Change("+4-steps"))
    run.close()
    assert warnings[0] == "update.decay=linear follows the budget: the rate goes from 0 to 0.5 of update.lr"


def test_further_budgets() -> None:
    used = {"steps": 100, "seconds": 90.0, "tokens": 1e5, "flops": 1e12}
    assert Budget.further("+100-steps", used) == Budget(200, "steps")
    assert Budget.further("250-steps", used) == Budget(250, "steps")
    assert Budget.further("+10m", used) == Budget(690, "seconds")
    assert Budget.further("+50k-tokens", used) == Budget(150000, "tokens")


def test_a_run_that_ended_for_want_of_signal_goes_on_when_that_is_asked_for(tmp_path: Path) -> None:
    path = begun(tmp_path, 4)
    step, state, _ = checkpoint.load(path / "checkpoints")
    checkpoint.save(
        path / "checkpoints",
        step,
        {**state, "ended": "no signal", "spent": {**state["spent"], "barren": 20.0}},
    )
    again(path)
    assert len(RunDirectory.open(path).metrics()) == 4
    run, _ = resume(path, letters.words(), change=Change("+2-steps"))
    run.close()  # killed before its next checkpoint
    again(path)
    assert len(RunDirectory.open(path).metrics()) == 6


def test_a_change_outlives_a_kill_before_the_next_checkpoint(tmp_path: Path) -> None:
    whole = begun(tmp_path, 8, "whole")
    path = begun(tmp_path, 4)
    for _ in range(2):
        run, warnings = resume(path, letters.words(), change=Change("8-steps"))
        run.close()
    assert warnings == []
    assert again(path)[0] == []
    assert facts(path) == facts(whole)
    assert [e["step"] for e in RunDirectory.open(path).config["history"]] == [4]


@pytest.mark.parametrize("unit", ["steps", "tokens", "flops"])
def test_the_share_that_is_spent_is_the_same_after_a_resume(unit: str, tmp_path: Path) -> None:
    amount = {"steps": 6, "tokens": 2000, "flops": 2e9}[unit]
    plan = letters.plan(tmp_path, "grpo", 6, **SMALL, update__decay="cosine").but(budget=Budget(amount, unit))
    run = start(plan, tmp_path / "run", letters.words())
    run.checkpoint()
    for _ in range(3):
        run.close()
        before = run.context.progress
        run, _ = resume(tmp_path / "run", letters.words())
        assert run.context.progress == before
        run.on_step = _stop
        with pytest.raises(KeyboardInterrupt):
            train(run)
        run.checkpoint()
    run.close()


def _stop(step: int, metrics: dict) -> None:
    raise KeyboardInterrupt
