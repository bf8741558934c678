"""A tiny model learns from its own attempts, with recipes of every kind of credit and loss."""

from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.train.loop import train
from etude.train.setup import start

CASES = {
    "reinforce": {"steps": 60},
    "grpo": {"steps": 40},
    "rloo": {"steps": 30},
    "dr_grpo": {"steps": 30},
    "dapo": {"steps": 30, "reward__overlong_penalty": 0.0},  # at two tokens every answer is overlong
    "gspo": {"steps": 30},
    "cispo": {"steps": 30},
    "bnpo": {"steps": 30},
    "lite_ppo": {"steps": 30},
    "reinforce_pp": {"steps": 120, "update__lr": 1e-3},
    "psr": {"steps": 60},
    "ppo": {"steps": 40, "credit__lam": 1.0},
    "rft": {"steps": 60},
    "dpo": {"steps": 60, "credit__pairs": 4, "update__lr": 1e-3},
}


SOON = (
    "grpo",
    "rloo",
    "ppo",
    "rft",
    "dpo",
)  # a kind of credit and of loss each; the others with pytest -m long


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[] if name in SOON else [pytest.mark.long]) for name in CASES]
)
def test_learns(recipe: str, tmp_path: Path) -> None:
    settings = dict(CASES[recipe])
    run = start(
        letters.plan(tmp_path, recipe, settings.pop("steps"), **settings), tmp_path / "run", letters.words()
    )
    before = run.evaluate("before")
    train(run)
    after = run.evaluate("last")
    run.close()
    assert 0.05 < before.mean.mean < 0.4
    assert after.mean.mean > 0.9
