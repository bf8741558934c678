"""Environments that wait: asynchronous ones and those that say `blocking` hold up neither the sampler nor each other."""

import asyncio
import threading
from typing import ClassVar

import pytest

import worlds_of_letters as letters
from etude.evaluate.run import attempt as examine
from etude.models.tiny import tiny
from etude.rollout.conversation import Generator
from etude.rollout.demonstrate import solution
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.tasks.isolate import Pool
from etude.tasks.user_code import foreign
from etude.types import Message, SamplingParams, Task, Verdict

EPISODES = 6
LATE = 30  # seconds; only reached where the episodes do not overlap


class Slow:
    """Two turns. The first ends when all episodes are in it; the second of episode 0 when all others are over, which they
    can only be if they were sampled meanwhile."""

    made: ClassVar[list] = []
    over = 0

    def __init__(self, seed: int = 0) -> None:
        self.number, self.turns = len(type(self).made), 0
        type(self).made.append(self)

    def observe(self) -> str:
        return "ab"

    def end(self) -> tuple[str, Verdict]:
        type(self).over += 1
        return "", Verdict(1.0, True)


class Awaited(Slow):
    made: ClassVar[list] = []
    all_in: asyncio.Event
    others: asyncio.Event
    waiting = 0

    async def act(self, text: str) -> tuple[str, Verdict | None]:
        self.turns += 1
        if self.turns == 1:
            Awaited.waiting += 1
            if Awaited.waiting == EPISODES:
                Awaited.all_in.set()
            await asyncio.wait_for(Awaited.all_in.wait(), LATE)
            return "cd", None
        if self.number == 0:
            await asyncio.wait_for(Awaited.others.wait(), LATE)
        elif Awaited.over == EPISODES - 2:
            Awaited.others.set()
        return self.end()

    def solve(self) -> list[str]:
        return ["a"]


class Blocking(Slow):
    made: ClassVar[list] = []
    blocking = True
    all_in = threading.Barrier(EPISODES)
    others = threading.Event()

    def act(self, text: str) -> tuple[str, Verdict | None]:
        self.turns += 1
        if self.turns == 1:
            Blocking.all_in.wait(LATE)
            return "cd", None
        if self.number == 0:
            assert Blocking.others.wait(LATE)
        elif Blocking.over >= EPISODES - 2:
            Blocking.others.set()
        return self.end()


def played(environment: type, episodes: int = EPISODES) -> list:
    """The groups of one task whose attempts are made at once."""
    task = Task((Message("user", "ab"),), letters.words, environment=environment)
    policy = tiny(letters.LETTERS)

    async def run() -> list:
        Awaited.all_in, Awaited.others = asyncio.Event(), asyncio.Event()
        return await examine(
            Generator(sampler_for(policy), policy.renderer, SamplingParams(max_tokens=2)),
            checks_in(pool, None, {}),
            [task],
            episodes,
            0,
        )

    with Pool(seconds=LATE) as pool:
        return asyncio.run(run())


@pytest.mark.parametrize("environment", [Awaited, Blocking])
def test_episodes_overlap_while_their_environments_wait(environment: type) -> None:
    (group,) = played(environment)
    assert not group.failed, group.failed[0].failure
    assert len(group.episodes) == EPISODES
    assert all(e.correct for e in group.episodes)
    assert not foreign(environment)


def test_what_is_no_answer_of_an_environment_fails_the_episode() -> None:
    class Wrong(Slow):
        in_process = True

        def act(self, text: str):
            return "ab", 1.0

    (group,) = played(Wrong, 1)
    (failed,) = group.failed
    assert failed.failure.where == "environment"
    assert "must return (text, a Verdict or None)" in failed.failure.error


def test_what_an_environment_raises_is_its_own_failure() -> None:
    class Broken(Slow):
        async def act(self, text: str):
            raise OSError("no line")

    (group,) = played(Broken, 1)
    assert group.failed[0].failure.where == "environment"
    assert "no line" in group.failed[0].failure.error


def test_a_demonstration_of_an_asynchronous_environment() -> None:
    class Once(Slow):
        async def act(self, text: str) -> tuple[str, Verdict | None]:
            return "", Verdict(float(text == "a"), text == "a")

        def solve(self) -> list[str]:
            return ["a"]

    task = Task((Message("user", "ab"),), letters.words, reference="a", environment=Once)
    episode = solution(task, tiny(letters.LETTERS).renderer)
    assert episode.correct
