"""A comparison end to end on a tiny model, through the command line."""

import itertools
import json
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude import cli
from etude.errors import UserError
from etude.evaluate.arms import parse_arms
from etude.evaluate.gate import Gate
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
    found = Gate().cause(run)
    assert found is None if cause is None else cause in (found or "")


def test_a_reward_that_rises_alone_is_named(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", {}, {})
    run.write_step(1, SOUND, [], [], lambda tokens: "")
    for step, mean, strict in ((0, 0.1, 0.1), (1, 0.9, 0.2)):
        run.write_eval({"step": step, "mean": mean, "strict": strict})
    assert "rose by 80 points, by a stricter checker by 10" in (Gate().cause(run) or "")
