"""Training in stages that are declared once: in order, each from what the one before left, and never twice."""

import json
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.errors import UserError
from etude.report.run import RunDirectory
from etude.train.pipeline import read, run_pipeline

STAGES = """
model = "{model}"
[[stage]]
name = "rm"
recipe = "reward_model"
pairs = "{pairs}"
budget = "2-steps"
settings = {{"run.tasks_per_step" = 2}}
[[stage]]
name = "rl"
recipe = "grpo"
model = "{model}"
tasks = "{prompts}:check=none"
reward = ["model:@rm,name=liked"]
budget = "1-steps"
settings = {{"run.tasks_per_step" = 1, "run.group_size" = 4, "run.max_tokens" = 3, "run.preflight" = 1}}
"""


def declared(place: Path, text: str = STAGES) -> Path:
    pairs, prompts = place / "pairs.jsonl", place / "prompts.jsonl"
    rows = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in "abcdef"]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in "abcdef"), encoding="utf-8")
    path = place / "pipeline.toml"
    path.write_text(
        text.format(model=letters.model(place / "model"), pairs=pairs, prompts=prompts), encoding="utf-8"
    )
    return path


def test_stages_follow_each_other_and_are_not_run_twice(tmp_path: Path) -> None:
    path, out = declared(tmp_path), tmp_path / "out"
    first = run_pipeline(read(path), out, force=True)
    assert [s["steps"] for s in first] == [2, 1]
    config = RunDirectory.open(out / "rl").config
    assert config["plan"]["rewards"] == [f"model:{out / 'rm' / 'model'},name=liked"]
    assert "score/liked" in RunDirectory.open(out / "rl").metrics()[0]
    again = run_pipeline(read(path), out)
    assert [s["ended"] for s in again] == ["was there already"] * 2
    changed = declared(tmp_path, STAGES.replace('"1-steps"', '"2-steps"'))
    with pytest.raises(UserError, match="made by another plan than stage 'rl'"):
        run_pipeline(read(changed), out)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("model:@rm", "model:@mr", "'@mr' names no earlier stage"),
        ('budget = "1-steps"', 'bugdet = "1-steps"', "no 'bugdet'"),
        ('name = "rl"', 'name = "rm"', "no earlier stage has"),
        ('pairs = "{pairs}"\n', "", "either tasks or pairs"),
    ],
)
def test_what_cannot_be_read_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read(declared(tmp_path, STAGES.replace(old, new)))


def test_the_next_stage_begins_with_what_the_last_one_left(tmp_path: Path) -> None:
    text = STAGES.replace('name = "rl"\nrecipe = "grpo"\nmodel = "{model}"', 'name = "rl"\nrecipe = "grpo"')
    assert read(declared(tmp_path, text))[1].at(tmp_path / "out").model == str(
        tmp_path / "out" / "rm" / "model"
    )
