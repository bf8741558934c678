"""A tiny model learns from its own attempts, with every base recipe."""

from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.train.loop import train
from etude.train.setup import start

CASES = {
    "reinforce": {"steps": 60},
    "grpo": {"steps": 40},
    "ppo": {"steps": 40, "credit__lam": 1.0},
    "rft": {"steps": 60},
    "dpo": {"steps": 60, "credit__pairs": 4, "update__lr": 1e-3},
}


@pytest.mark.parametrize("recipe", list(CASES))
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
