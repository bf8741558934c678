"""A user's rewards, checks and environments, as bad as they come: each harms its own episode and nothing else.

Looked for: a function that hangs (also once in a while, and from the first call on), raises on a share of its calls, ends
the process (os._exit, sys.exit, a segmentation fault, os.abort, SIGKILL, closing all descriptors), prints megabytes,
writes nonsense to every descriptor it finds, closes standard output, leaves threads and processes behind, and changes
the working directory, environment variables, random states and signal handlers; as reward, as check, as environment.
"""

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

from etude.tasks import forks, user_code
from etude.tasks.check import CheckError, Function, TooLate
from etude.tasks.isolate import Pool
from etude.types import Verdict

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
