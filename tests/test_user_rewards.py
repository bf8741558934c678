"""A user's rewards and checks in a run: what they give, and that their failures stay with their own episodes."""

import asyncio
import functools
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import worlds_of_letters as letters
from etude import seeds
from etude.errors import Refused
from etude.report.run import RunDirectory
from etude.reward.function import from_function
from etude.tasks import TaskSet
from etude.tasks.check import Function
from etude.tasks.isolate import Pool
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Episode, Message, Task

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the functions run in the run's process")


def episode(text: str) -> Episode:
    return Episode(Task((Message("user", "q"),), lambda answer: True), (), text=text)


@pytest.mark.parametrize(
    ("returned", "scores"),
    [
        (True, {"reward": 1.0}),
        (np.float32(0.5), {"reward": 0.5}),
        ({"a": np.bool_(1), "b": 0.25}, {"a": 1.0, "b": 0.25, "reward": 1.25}),
    ],
)
def test_rewards_come_back_as_they_would_here(returned, scores) -> None:
    def reward(episode):
        return returned

    with Pool(known=[reward]) as own:
        assert asyncio.run(from_function(reward, None, own)(episode(""))) == scores
        assert asyncio.run(from_function(reward)(episode(""))) == scores


def test_asynchronous_rewards_wait_together_and_not_for_ever() -> None:
    async def judge(episode):
        await asyncio.sleep(0.05 if episode.text == "quick" else 60)
        return 1.0

    with Pool(seconds=0.5) as own:
        reward = from_function(judge, None, own)

        async def together():
            return await asyncio.gather(
                *(reward(episode("quick")) for _ in range(40)),
                reward(episode("slow")),
                return_exceptions=True,
            )

        begin = time.monotonic()
        *quick, slow = asyncio.run(together())
        assert time.monotonic() - begin < 1.5, "40 x 0.05 s, one after another, are 2 s"
        assert quick == [{"reward": 1.0}] * 40
        assert "judge' took longer than its deadline" in str(slow)


def misbehaving(kinds, inner):
    """A reward that does one of `kinds` on the episodes of a task each, and elsewhere what `inner` does."""
    doing = dict(zip("bcd", kinds, strict=False))

    def reward(episode):
        word = episode.task.prompt[0].content
        if word.startswith("a") and word[1] in doing:
            doing[word[1]]()
        return inner(episode)

    return reward


def shown(directory: Path):
    table = RunDirectory.open(directory).episodes([1]).to_pylist()
    return {(row["task_key"], row["index"]): (row["tokens"], row["reward"], row["failure"]) for row in table}


@linux
def test_a_run_goes_on_and_the_other_episodes_are_what_they_were(tmp_path: Path) -> None:
    """Exits, hangs and exceptions on some tasks: those episodes are counted, all others have the tokens and rewards of a
    run with a sound reward."""

    def sound(episode):
        return 0.1 * len(episode.text) + 0.5 * episode.correct

    kinds = (functools.partial(os._exit, 0), lambda: 1 / 0, functools.partial(sys.exit, 0))
    found = []
    for name, reward in (("good", sound), ("bad", misbehaving(kinds, sound))):
        plan = letters.plan(tmp_path, steps=1, run__eval_problems=0, run__error_rate=0.5)
        run = start(plan, tmp_path / name, letters.words(), reward)
        train(run)
        run.close()
        found.append(shown(tmp_path / name))
    good, bad = found
    assert good.keys() <= bad.keys(), "more is drawn where groups are left empty"
    failed = {key for key, row in bad.items() if row[2]}
    assert 0 < len(failed) < len(bad) / 2
    assert all(good[key] == bad[key] for key in good.keys() - failed)
    assert {"reward"} == {
        row[2].split('"where": "')[1].split('"')[0] for key, row in bad.items() if key in failed
    }
    metrics = RunDirectory.open(tmp_path / "bad").metrics()[-1]
    assert metrics["errors"] == pytest.approx(len(failed) / len(bad))


def test_a_reward_that_fails_now_and_then_stops_no_run_of_small_steps(tmp_path: Path) -> None:
    """One failure among the 8 attempts of a step is more than the 10 % that are allowed."""

    def moody(episode):
        if seeds.key("moody", episode.task.key, episode.index, episode.policy_version) / 2**63 < 0.03:
            raise ValueError("not today")
        return 1.0 * episode.correct

    small = {"run__tasks_per_step": 2, "run__group_size": 4, "run__eval_problems": 0}
    run = start(letters.plan(tmp_path, steps=40, **small), tmp_path / "run", letters.words(), moody)
    train(run)
    run.close()
    errors = [metrics["errors"] for metrics in run.directory.metrics()]
    assert max(errors) > 0.1
    assert 0 < np.mean(errors) < 0.08


@linux
def test_a_reward_that_always_ends_the_process_stops_the_run_in_a_sentence(tmp_path: Path) -> None:
    plan = letters.plan(tmp_path, steps=1, run__eval_problems=0, run__tasks_per_step=4, run__group_size=4)
    run = start(plan, tmp_path / "run", letters.words(), lambda episode: os._exit(0))
    with pytest.raises(
        Refused, match=r"attempts failed with an error.*in reward: the reward .* ended its process"
    ):
        train(run)
    run.close()


@linux
def test_a_check_that_raises_now_and_then_does_not_end_the_strict_pass(tmp_path: Path) -> None:
    """It raised there, outside the boundary of an episode, and took the run down."""

    calls = []

    def moody(answer: str) -> bool:
        calls.append(answer)
        if len(calls) % 10 > 7:  # twice in a row: a check has a second chance
            raise ValueError("not today")
        return answer[:1] == "a"

    tasks = TaskSet.of(
        [
            Task((Message("user", w),), Function(moody), answer="a")
            for w in ("ab", "ad", "ac", "da", "db", "dc")
        ]
    )
    plan = letters.plan(tmp_path, steps=1, run__error_rate=0.9, run__eval_samples=40, run__temperature=3)
    run = start(plan, tmp_path / "run", tasks)
    result = run.evaluate("before")
    run.close()
    assert result.errors > 0
    assert run.directory.evals()[0]["strict"] is not None
