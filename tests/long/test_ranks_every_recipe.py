"""Every recipe on two ranks: credit, gradient and three steps are those of a process alone. And what ends a group of ranks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from etude.methods import catalogue
from etude.models.tiny import tiny_directory
from etude.scale.ranks import RankLost, Ranks
from two_ranks import same_as_alone, two_ranks

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    place = tmp_path_factory.mktemp("models")
    first, second = (str(tiny_directory(place / f"m{s}", width=32, seed=s)) for s in (1, 2))
    return first, second


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with two_ranks() as group:
        yield group


@pytest.mark.parametrize("recipe", list(catalogue()))
def test_two_ranks_train_as_one_process(recipe: str, models: tuple[str, str], ranks: Ranks) -> None:
    same_as_alone(recipe, *models, ranks)


DRIVER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from two_ranks import two_ranks
with two_ranks() as ranks:
    print(ranks._processes[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ranks_end_with_the_driver() -> None:
    told = DRIVER.format(tests=str(Path(__file__).parents[1]))
    driver = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    pid = int(driver.stdout)
    end = time.monotonic() + 60
    while psutil.pid_exists(pid) and time.monotonic() < end:
        time.sleep(0.2)
    assert not psutil.pid_exists(pid)


def stuck(held: Any) -> None:
    time.sleep(600 * held.rank)


def wrong(held: Any) -> None:
    if held.rank:
        raise ValueError("no such thing")


def test_a_rank_that_fails_or_does_not_answer_is_named(ranks: Ranks) -> None:
    ranks.close()
    for work, words in (
        (wrong, "trainer rank 1 failed to wrong: ValueError: no such thing; the run is whole"),
        (stuck, "trainer rank 1 did not stuck within 3 s"),
    ):
        with two_ranks() as group:
            group.deadline = 3.0
            with pytest.raises(RankLost, match=words):
                group.everywhere(work)
