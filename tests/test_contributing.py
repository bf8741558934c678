"""The code of CONTRIBUTING.md does what it says: methods train and their rows hold, everything else runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import documents
import worlds_of_letters as letters
from etude.methods import find, outside
from etude.recipe import Credited, OffPolicy
from etude.testing import rows
from etude.train.loop import train
from etude.train.setup import start

BLOCKS = documents.fenced("CONTRIBUTING.md", "python")
METHODS = {name[1]: block for block in BLOCKS if (name := re.match(r"# (\w+\.py)\n", block))}
OTHERS = [block for block in BLOCKS if block not in METHODS.values()]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_its_rows_hold(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(METHODS[name])
    recipe = find(str(file))
    assert recipe.examples
    for row in recipe.examples:
        if isinstance(row, OffPolicy):
            loss, gradient = rows.off_policy(recipe, row)
            np.testing.assert_allclose(loss, row.loss, atol=1e-5)
            np.testing.assert_allclose(gradient, row.gradient, atol=1e-5)
        elif isinstance(row, Credited):
            np.testing.assert_allclose(rows.credited(recipe, row), row.advantages, atol=1e-5)
    run = start(letters.plan(tmp_path, str(file), 2, run__eval_problems=0), tmp_path / "run", letters.words())
    train(run)
    run.close()
    assert len(run.directory.metrics()) == 2


@pytest.mark.parametrize("block", OTHERS, ids=lambda block: re.findall(r"class (\w+)", block)[0])
def test_a_task_runs(block: str) -> None:
    found: dict = {"__name__": "page"}
    exec(compile(block, "CONTRIBUTING.md", "exec"), found)
    assert found["task_set"].kinds


def test_the_entry_point_is_the_one_that_is_read() -> None:
    (block,) = documents.fenced("CONTRIBUTING.md", "toml")
    assert list(tomllib.loads(block)["project"]["entry-points"]) == [outside.GROUP]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    text = (documents.ROOT / "CONTRIBUTING.md").read_text()
    assert {language for language, _ in documents.FENCE.findall(text)} == {"python", "sh", "toml"}
