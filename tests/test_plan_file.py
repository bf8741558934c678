"""Plans as files: what they say, what is refused, and that a written plan is the plan that it was written from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from etude import cli
from etude.assembly import resolved_stages
from etude.cli.plan import expanded
from etude.errors import UserError
from etude.methods import catalogue
from etude.models.tiny import tiny_directory
from etude.train import plan_file
from etude.train.config import Budget, Plan
from etude.train.setup import resolve

COMMANDS = cli.typer.main.get_command(cli.app)
PLAN = """
recipe = "grpo"   # a comment
model = "tiny"
tasks = ["chain_sum", "mine.jsonl:eval_share=0"]
steps = 3
[run]
tasks_per_step = 4
skip_preflight = true
[update]
lr = 1e-5
"""


def write(place: Path, text: str, name: str = "plan.toml") -> str:
    (place / name).write_text(text, encoding="utf-8")
    return str(place / name)


def words(place: Path, text: str, *more: str, command: str = "train", name: str = "plan.toml") -> list[str]:
    return expanded([command, write(place, text, name), *more], COMMANDS)


def test_a_plan_is_a_command_line(tmp_path: Path) -> None:
    said = words(tmp_path, PLAN, "--set", "update.lr=2e-5", "--seed", "4")
    assert said[:8] == [
        "train",
        "grpo",
        "--model",
        "tiny",
        "--tasks",
        "chain_sum,mine.jsonl:eval_share=0",
        "--steps",
        "3",
    ]
    assert said[8:] == [
        *("--set", "run.tasks_per_step=4", "--set", "run.skip_preflight=true", "--set", "update.lr=1e-05"),
        *("--set", "update.lr=2e-5", "--seed", "4"),  # what is given beside the file comes later, so it counts
    ]  # fmt: skip


def test_a_budget_beside_a_plan_replaces_its_steps(tmp_path: Path) -> None:
    assert "--steps" not in words(tmp_path, PLAN, "--budget", "1m")


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_other_formats(ending: str, tmp_path: Path) -> None:
    said = {"recipe": "rloo", "tasks": "lab", "update": {"lr": 0.5}}
    text = json.dumps(said) if ending == "json" else "recipe: rloo\ntasks: lab  # these\nupdate:\n  lr: 0.5\n"
    assert words(tmp_path, text, name=f"p.{ending}") == [
        "train",
        "rloo",
        "--tasks",
        "lab",
        "--set",
        "update.lr=0.5",
    ]


def test_a_sweep_is_a_comparison_on_tuning_problems(tmp_path: Path) -> None:
    text = 'recipe = "grpo"\ntasks = "lab"\nbudget = "1m"\n[sweep]\nupdate.lr = [1e-6, 3e-6]\nrun.group_size = [4, 8]'
    command, *said = words(tmp_path, text)
    assert command == "compare"
    assert said[0] == "lr-1e-06_group_size-4=grpo:update.lr=1e-06,run.group_size=4"
    assert len([w for w in said if "=grpo:" in w]) == 4
    assert said[-2:] == ["--set", "run.tuning=true"]
    assert words(tmp_path, text, "--out", "x")[-2:] == ["--out", "x"]
    with pytest.raises(
        UserError, match="holds a sweep, which `etude compare` runs, and that has no option --force"
    ):
        words(tmp_path, text, "--force")


def test_several_recipes_are_a_comparison(tmp_path: Path) -> None:
    text = 'recipes = ["grpo", "rloo"]\ntasks = "lab"\nbudget = "1m"'
    assert words(tmp_path, text, command="compare")[:3] == ["compare", "grpo", "rloo"]
    with pytest.raises(UserError, match="names several recipes; compare them"):
        words(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe = ", "cannot be read: Invalid value"),
        ('tasks = "lab"', "must name a recipe"),
        ('recipe = "grpo"\nmodle = "x"', "'modle' is no option of this command; did you mean 'model'"),
        ('recipe = "grpo"\n[update.more]\nlr = 1', "settings stand one level deep"),
        ('recipe = "grpo"\n[sweep]\nupdate.lr = 1e-5', "sweep of 'update.lr' must be a list"),
        ('recipe = "grpo"\nmodel = [1]', "'model' is"),
    ],
)
def test_what_a_plan_cannot_say(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        words(tmp_path, text)


def test_a_plan_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"there is no plan file 'none\.toml'"):
        expanded(["train", "none.toml"], COMMANDS)


def values(plan: Plan) -> object:
    recipe, settings, _ = resolve(plan)
    return settings, {
        name: (part.factory, part.checked(name)) for name, part in resolved_stages(recipe).items()
    }


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_a_written_plan_is_the_plan(name: str, tmp_path: Path) -> None:
    plan = Plan(name, "tiny", "lab", Budget(7, "steps"), 3, {"run.group_size": "4"})
    file = plan_file.read(write(tmp_path, plan_file.written(plan)))
    again = Plan(file.recipes[0], "tiny", "lab", Budget.parse(file.options["budget"]), 3, file.changes)
    assert values(again) == values(plan)


def test_the_configuration_of_a_run_is_a_plan(tmp_path: Path) -> None:
    plan = Plan("rloo", "tiny", "lab", Budget(7, "steps"), 3, {"update.lr": "0.5"})
    path = write(tmp_path, json.dumps({"plan": plan.to_dict(), "settings": {}}), "config.json")
    assert expanded(["train", path], COMMANDS) == [
        *("train", "rloo", "--model", "tiny", "--tasks", "lab", "--budget", "7-steps", "--seed", "3"),
        *("--set", "update.lr=0.5"),
    ]  # fmt: skip


def test_training_by_a_plan(tmp_path: Path) -> None:
    """As a user does it: write the plan, train by it."""
    model = tiny_directory(tmp_path / "m", "0123456789+=", layers=1, width=16, heads=2, kv_heads=1)
    tasks = write(
        tmp_path, "\n".join(json.dumps({"prompt": f"{i}+1=", "answer": i + 1}) for i in range(9)), "t.jsonl"
    )
    more = ["-m", str(model), "-t", tasks, "--steps", "1"]
    for pair in ("run.eval_problems=2", "run.max_tokens=2", "run.skip_preflight=true", "run.precision=fp32"):
        more += ["--set", pair]
    command = [sys.executable, "-m", "etude"]
    made = subprocess.run(
        [*command, "plan", "grpo", *more], capture_output=True, text=True, check=True
    ).stdout
    path = write(tmp_path, made)
    done = subprocess.run(
        [*command, "train", path, "--out", str(tmp_path / "run"), "-q"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model").is_dir()


def test_init_asks_and_writes_a_plan_that_can_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from etude.cli import plan as commands

    tried = []
    monkeypatch.setattr(commands, "_can_learn", lambda *a: tried.append(a) or {"run.max_tokens": 128})
    answers = "\n".join(["smollm2", "chain_summ", "chain_sum", "grpoo", "rloo", "5m", "64"])
    out = tmp_path / "p.toml"
    done = CliRunner().invoke(cli.app, ["init", str(out)], input=answers + "\n")
    assert done.exit_code == 0, done.output
    assert tried == [("rloo", "smollm2", "chain_sum", "5m", {"run.max_tokens": 64})]
    file = plan_file.read(out)
    assert file.recipes == ("rloo",)
    assert file.changes == {"run.max_tokens": "128"}
    assert "etude train" in out.read_text()


def test_the_schema_describes_what_plans_hold() -> None:
    schema = plan_file.schema()
    assert schema["properties"]["update"]["properties"]["lr"]["minimum"] == 0
    assert schema["properties"]["run"]["properties"]["precision"]["enum"] == ["bf16", "fp32"]
    json.dumps(schema)
