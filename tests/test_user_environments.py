"""Environments of a user, beside the run: one that hangs, ends its process or raises harms its own episode and no other."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.evaluate.run import attempt as examine
from etude.models.tiny import tiny
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.tasks.check import CheckError
from etude.tasks.isolate import Pool
from etude.types import Message, SamplingParams, Task, Verdict
from test_user_code import ENDINGS, linux


class Maze:
    """Two moves to the end; some words are its end in another sense."""

    def __init__(self, seed: int) -> None:
        self.seed, self.moves = seed, []

    def observe(self) -> str:
        return f"begin {self.seed}"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        if text in ENDINGS:
            ENDINGS[text][0]()
        self.moves.append(text)
        return " ".join(self.moves), Verdict(1.0, True, "done") if len(self.moves) == 2 else None

    def solve(self) -> list[str]:
        return ["a", "b"]


@linux
@pytest.mark.parametrize("name", ["os._exit", "hang", "raise", "sys.exit"])
def test_an_environment_that_dies_takes_no_other_along(name: str) -> None:
    with Pool(seconds=0.3, known=[Maze]) as own:
        one, two, three = (own.environment(Maze, seed) for seed in (1, 2, 3))
        assert (one.observe(), two.observe()) == ("begin 1", "begin 2")
        assert one.act("x") == ("x", None)
        with pytest.raises(CheckError, match="the environment 'Maze'") as error:
            two.act(name)
        assert error.value.where == "environment"
        assert one.act("y") == ("x y", Verdict(1.0, True, "done"))
        assert three.observe() == "begin 3"
        assert three.solve() == ["a", "b"]
        assert not hasattr(three, "nothing")


@linux
def test_environments_are_forgotten_with_their_episodes() -> None:
    with Pool(known=[Maze]) as own:
        for seed in range(5):
            own.environment(Maze, seed).observe()
        last = own.environment(Maze, 9)
        assert last.observe() == "begin 9"
        held = own.beside.call("check", "a count", count_of_made)
        assert held == 1


def count_of_made() -> int:
    return sum(isinstance(thing, Maze) for thing in gc.get_objects())


@linux
def test_episodes_in_worlds_of_a_user_fail_one_by_one(tmp_path: Path) -> None:
    class Unsafe(Maze):
        def act(self, text):
            if self.seed % 3 == 0:
                os._exit(0)
            return super().act("go")

    task = Task((Message("user", "q"),), Maze, environment=Unsafe)
    policy = tiny(letters.LETTERS)
    with Pool(seconds=1, known=[Unsafe]) as own:
        sampler = sampler_for(policy)
        generator = Generator(sampler, policy.renderer, SamplingParams(max_tokens=2))
        (group,) = asyncio.run(examine(generator, checks_in(own, sampler, {}), [task], 24, 0))
    assert 0 < len(group.failed) < 20
    assert all(e.correct for e in group.episodes)
    assert {e.failure.where for e in group.failed} == {"environment"}
