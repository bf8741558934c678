"""A user's rewards, checks and environments, as bad as they come: each harms its own episode and nothing else.

Looked for: a function that hangs (also once in a while, and from the first call on), raises on a share of its calls, ends
the process (os._exit, sys.exit, a segmentation fault, os.abort, SIGKILL, closing all descriptors), prints megabytes,
writes nonsense to every descriptor it finds, closes standard output, leaves threads and processes behind, and changes
the working directory, environment variables, random states and signal handlers; as reward, as check, as environment.
"""

import asyncio
import contextlib
import ctypes
import functools
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import worlds_of_letters as letters
from etude import seeds
from etude.errors import Refused
from etude.report.run import RunDirectory
from etude.reward.function import from_function
from etude.tasks import TaskSet, forks, user_code
from etude.tasks.check import CheckError, Function, TooLate
from etude.tasks.isolate import Pool
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Episode, Message, Task, Verdict

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the functions run in the run's process")


def hang() -> None:
    while True:
        pass


def fault() -> None:
    ctypes.string_at(0)


def close_everything() -> None:
    os.closerange(0, 100)


def scribble() -> None:
    for descriptor in range(3, 40):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\0\0\0\0\0\0\0\x20[1]")


ENDINGS = {
    "hang": (hang, "took longer than its deadline (0.3 s, run.check_seconds)"),
    "sleep": (functools.partial(time.sleep, 60), "took longer than its deadline"),
    "os._exit": (functools.partial(os._exit, 0), "ended its process (exit status 0)"),
    "sys.exit": (functools.partial(sys.exit, 0), "SystemExit: it called sys.exit(0)"),
    "interrupt": (
        functools.partial(signal.raise_signal, signal.SIGINT),
        "ended its process (exit status -2)",
    ),
    "abort": (os.abort, "ended its process (exit status -6)"),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended its process (exit status -9)"),
    "segfault": (fault, "ended its process (exit status -11)"),
    "closed": (close_everything, "ended its process"),
    "scribble": (scribble, "wrote over its own result"),
    "raise": (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    "memory": (lambda: bytearray(1 << 60), "MemoryError"),
}


@pytest.fixture(scope="module")
def pool():
    def misbehave(answer: str) -> bool:
        if answer in ENDINGS:
            ENDINGS[answer][0]()
        return answer == "yes"

    with Pool(seconds=0.3, known=[misbehave]) as made:
        made.function = misbehave
        yield made


@linux
@pytest.mark.parametrize("name", list(ENDINGS))
def test_a_function_that_fails_is_an_error_and_the_next_call_is_answered(pool, name: str) -> None:
    with pytest.raises(CheckError) as error:
        pool.run(pool.function, name)
    assert ENDINGS[name][1] in str(error.value)
    assert "misbehave" in str(error.value), "the function is named"
    assert pool.run(pool.function, "yes") == Verdict(1.0, True)
    assert pool.run(pool.function, "no") == Verdict(0.0, False)


@linux
def test_what_it_changes_stays_away_from_the_run_and_from_the_next_call(pool, capfd) -> None:
    before = os.getcwd(), dict(os.environ), random.getstate(), signal.getsignal(signal.SIGTERM)
    seen = []

    def change(answer: str) -> bool:
        found = (
            os.getcwd() == before[0] and "CHANGED" not in os.environ and not seen and not sys.stdout.closed
        )
        os.chdir("/")
        os.environ["CHANGED"] = "1"
        random.seed(1)
        np.random.seed(1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        seen.extend(answer)
        if answer == "closes":
            sys.stdout.close()
            os.close(1)
        seen.clear()
        return found

    with Pool(seconds=5, known=[change]) as own:
        for answer in ("", "closes", "", "x"):
            assert own.run(change, answer).correct
    assert before == (os.getcwd(), dict(os.environ), random.getstate(), signal.getsignal(signal.SIGTERM))
    assert not seen
    print("still there")
    assert capfd.readouterr().out == "still there\n"


@linux
def test_megabytes_are_cut_and_cleaned(capfd) -> None:
    def loud(answer: str) -> bool:
        print("first\x1b[31m", answer * 1_000_000)
        os.write(2, b"y" * 1_000_000)
        return True

    with Pool(seconds=20, known=[loud]) as own:
        assert own.run(loud, "x").correct
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("first xxxx")
    assert "bytes more]" in said.err
    assert len(said.err) < forks.SHOWN + 100


@linux
def test_nothing_of_it_is_left_behind(tmp_path: Path) -> None:
    def litter(answer: str) -> bool:
        child = subprocess.Popen(["sleep", "60"])
        threading.Thread(target=hang, daemon=True).start()
        Path(answer).write_text(f"{child.pid} {os.getpid()} {os.getppid()}")
        return True

    with Pool(seconds=5, known=[litter]) as own:
        assert own.run(litter, str(tmp_path / "pids")).correct
    for pid in (tmp_path / "pids").read_text().split():
        for _ in range(100):
            stat = Path(f"/proc/{pid}/stat")
            if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"process {pid} lives on")


@linux
def test_a_killed_run_leaves_no_worker(tmp_path: Path) -> None:
    code = (
        "import os, time\nfrom etude.tasks.isolate import Pool\n"
        "def f(answer):\n    print(os.getpid(), os.getppid(), flush=True)\n    open(answer, 'w').write(f'{os.getpid()} {os.getppid()}')\n"
        "    while True: pass\n"
        f"Pool(seconds=60, known=[f]).run(f, {str(tmp_path / 'pids')!r})\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    for _ in range(400):
        if (tmp_path / "pids").exists() and (tmp_path / "pids").read_text():
            break
        time.sleep(0.05)
    run.kill()
    run.wait()
    for pid in (tmp_path / "pids").read_text().split():
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"process {pid} lives on")


@linux
def test_a_function_keeps_what_it_keeps() -> None:
    """A reward that loads a model at its first call must not load it at every call."""
    calls: list[str] = []

    def counting(answer: str) -> float:
        calls.append(answer)
        return len(calls) / 10

    with Pool(known=[counting]) as own:
        assert [own.run(counting, "a").reward for _ in range(3)] == [0.1, 0.2, 0.3]
    assert calls == []


@linux
def test_one_that_always_hangs_is_given_up(tmp_path: Path) -> None:
    asked = tmp_path / "asked"

    def endless(answer: str) -> bool:
        with asked.open("a") as file:
            file.write("!")
        hang()
        return True

    with Pool(seconds=0.3, known=[endless]) as own:
        for _ in range(user_code.PATIENCE):
            with pytest.raises(TooLate):
                own.run(endless, "")
        with pytest.raises(
            CheckError, match=r"'test_one_that_always_hangs_is_given_up.endless' ran out of time 3 times"
        ):
            own.run(endless, "")
        assert asked.read_text() == "!" * user_code.PATIENCE, "it is not asked again"


def test_what_asks_for_it_runs_here() -> None:
    def inside(answer: str) -> bool:
        return os.getpid() == int(answer)

    with Pool(known=[inside]) as own:
        assert own.run(inside, str(os.getpid())).correct == (sys.platform != "linux")
        inside.in_process = True
        assert own.run(inside, str(os.getpid())).correct
        assert own.run(Function(inside), str(os.getpid())).correct
        inside.in_process = False
        leave = functools.partial(lambda code, answer: sys.exit(code), 0)
        leave.func.in_process = True
        with pytest.raises(CheckError, match="SystemExit"):
            own.run(leave, "")


def test_what_cannot_be_packed_and_was_not_there_runs_here() -> None:
    with Pool(known=[hang]) as own:
        lock = threading.Lock()
        assert own.run(
            lambda answer: not lock.locked() and os.getpid() == int(answer), str(os.getpid())
        ).correct


# ---- rewards -----------------------------------------------------------------------------------------


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


# ---- checks ------------------------------------------------------------------------------------------


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


@linux
def test_the_older_of_two_servers_can_be_closed_first() -> None:
    """The younger one holds a copy of its line to this process, which must not keep it alive."""
    older = forks.ForkServer([os.getpid])
    younger = forks.ForkServer([os.getpid])
    pid = older.pid
    closing = threading.Thread(target=older.close, daemon=True)
    closing.start()
    closing.join(20)
    stuck = closing.is_alive()
    if stuck:
        os.kill(pid, signal.SIGKILL)
    younger.close()
    assert not stuck
