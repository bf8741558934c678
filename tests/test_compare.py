"""A comparison end to end on a tiny model, through the command line."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import worlds_of_letters as letters
from etude import cli
from etude.compare import schedule
from etude.compare.arms import parse_arms
from etude.compare.gate import ArmGate
from etude.errors import UserError
from etude.models.tiny import tiny_directory
from etude.report.run import RunDirectory


def words(place: Path) -> str:
    rows = [{"prompt": "".join(w), "answer": w[0]} for w in itertools.product("abcd", repeat=4)]
    (place / "words.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(place / "words.jsonl")


def test_two_arms_two_seeds(tmp_path: Path, capsys) -> None:
    command = [
        "compare",
        "grpo",
        "slow=grpo:update.lr=1e-6",
        "--tasks",
        words(tmp_path),
        "--budget",
        "4-steps",
    ]
    command += [
        "--model",
        letters.model(tmp_path),
        "--seeds",
        "2",
        "--out",
        str(tmp_path / "out"),
        "--parallel",
        "2",
    ]
    for setting in (
        "run.precision=fp32",
        "run.max_tokens=2",
        "run.eval_problems=12",
        "run.evals=1",
        "run.tasks_per_step=4",
    ):
        command += ["--set", setting]
    assert cli.run([*command, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [a["name"] for a in results["arms"]] == ["grpo", "slow", "untrained"]
    first, slow, start = results["arms"]
    assert first["valid"]
    assert slow["valid"], slow["cause"]
    assert len(first["curve"]) == 3
    assert first["curve"][0]["mean"] == start["final"]["mean"], "all arms begin with the untrained model"
    assert slow["settings"]["update.lr"] == 1e-6
    assert "run.max_tokens" not in slow["settings"], "only what differs"
    assert first["difference"] is None
    assert slow["difference"]["low"] <= slow["difference"]["points"] <= slow["difference"]["high"]
    assert not first["alone"]
    assert (tmp_path / "out" / "report.html").exists()

    assert cli.run(command) == 0, "started again it has nothing left to do"
    assert "4 of 4 runs were done already" in capsys.readouterr().err
    assert cli.run([*command[:-2], "--set", "run.tasks_per_step=5"]) == 2
    assert "holds another comparison (its changes differ)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (["grpo", "grpo"], "two arms are called"),
        (["untrained=grpo"], "choose another"),
        (["a=b=c"], "an arm looks like"),
    ],
)
def test_arms_that_cannot_be_told_apart(arms: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_arms(arms)


def test_settings_of_an_arm() -> None:
    (arm,) = parse_arms(["half=grpo+nsr:update.lr=5e-6,credit.std=false"])
    assert (arm.name, arm.recipe, arm.changes) == (
        "half",
        "grpo+nsr",
        {"update.lr": "5e-6", "credit.std": "false"},
    )
    (arm,) = parse_arms(["mixture:curriculum.weights=sum=4,sort=1,run.group_size=4"])
    assert arm.changes == {"curriculum.weights": "sum=4,sort=1", "run.group_size": "4"}


SOUND = {"signal_tokens": 0.5, "errors": 0.0, "gap": 0.0, "truncated": 0.1, "correct": 0.3}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({}, None),
        ({"signal_tokens": 0.0}, "no step carried any signal"),
        ({"errors": 0.3}, "30% of its attempts ended in an error"),
        ({"gap": 0.5}, "disagree by 0.50 nats"),
        ({"truncated": 0.95, "correct": 0.0}, "95% of its attempts were cut off"),
    ],
)
def test_gate(change: dict, cause: str | None, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", {}, {})
    for step in (1, 2):
        run.write_step(step, {**SOUND, **change}, [], [], lambda tokens: "")
    found = ArmGate().cause(run)
    assert found is None if cause is None else cause in (found or "")


def test_a_reward_that_rises_alone_is_named(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", {}, {})
    run.write_step(1, SOUND, [], [], lambda tokens: "")
    for step, mean, strict in ((0, 0.1, 0.1), (1, 0.9, 0.2)):
        run.write_eval({"step": step, "mean": mean, "strict": strict})
    assert "rose by 80 points, by a stricter checker by 10" in (ArmGate().cause(run) or "")


def test_an_arm_finds_its_learning_rate_within_its_budget(tmp_path: Path, capsys) -> None:
    """Half of the budget is shared by the candidates, half is left for the runs that count; no problem is shared."""
    model = tiny_directory(tmp_path / "model", seed=1)
    command = ["compare", "grpo", "--tasks", "chain_sum:max_terms=2", "--budget", "8-steps", "--tune", "2"]
    command += [
        "--model",
        str(model),
        "--seeds",
        "2",
        "--out",
        str(tmp_path / "out"),
        "--parallel",
        "2",
        "--json",
    ]
    for setting in ("precision=fp32", "max_tokens=2", "eval_problems=8", "tasks_per_step=2", "evals=0"):
        command += ["--set", f"run.{setting}"]
    assert cli.run(command) == 0
    rates = json.loads(capsys.readouterr().out)["tuning"]["grpo"]
    tried = sorted(p for p in (tmp_path / "out" / "tuning" / "grpo").iterdir() if p.is_dir())
    counted = [p for p in (tmp_path / "out" / "arms" / "grpo").iterdir() if p.is_dir()]
    assert len(tried) == len(counted) == 2
    assert [len(RunDirectory.open(p).metrics()) for p in tried] == [2, 2], (
        "half of 8 steps, for two candidates"
    )
    assert [len(RunDirectory.open(p).metrics()) for p in counted] == [4, 4]

    assert sorted(map(float, rates)) == pytest.approx([1e-5, 3e-5])
    assert list(rates.values()) == sorted(rates.values(), reverse=True)
    plans = [json.loads((p.parent / f"{p.name}.job.json").read_text())["plan"] for p in counted]
    assert {plan["changes"]["update.lr"] for plan in plans} == {next(iter(rates))}

    def problems(paths: list[Path]) -> set[str]:
        return {key for p in paths for key, _, _ in RunDirectory.open(p).evals()[-1]["per_problem"]}

    assert not problems(tried) & problems(counted)


def test_tuning_on_a_handful_of_tasks_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "three.jsonl").write_text("\n".join(json.dumps({"prompt": p, "answer": p}) for p in "abc"))
    command = ["compare", "grpo", "rft", "--tasks", str(tmp_path / "three.jsonl"), "--budget", "8-steps"]
    command += ["--tune", "2"]
    command += ["--model", letters.model(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.run([*command, "--set", "run.max_tokens=2"]) == 2
    assert "too few tasks to set some aside for tuning" in capsys.readouterr().err


class Child:
    """Stands for a process that takes `memory` bytes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def test_what_does_not_fit_into_memory_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = schedule.Job("a", 0, {}, tmp_path / "run")
    said: list[str] = []
    room = schedule.Room(said.append)
    monkeypatch.setattr(schedule, "_resident", lambda pid: 3 << 30)
    free = SimpleNamespace(available=4 << 30)
    monkeypatch.setattr(schedule.psutil, "virtual_memory", lambda: free)
    running = {Child(1): job}
    assert room.for_another({})
    assert not room.for_another(running), "nobody knows yet what a run takes"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    assert room.for_another(running)
    free.available = 3 << 30
    assert not room.for_another(running)
    assert not room.for_another(running)
    assert said == ["no more than 1 at once fit into memory: a run takes 3.0 GB and 3.0 GB are free"]
