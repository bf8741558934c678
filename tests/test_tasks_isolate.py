"""Checks in a child process: deadlines, crashes and clean ends."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.tasks.check import Function, Math
from etude.tasks.isolate import CheckError, Pool
from etude.types import Verdict

SOURCE = """
import os, subprocess, sys, time

def fine(answer): return answer == "yes"
def verdict(answer):
    from etude.types import Verdict
    return Verdict(0.5, False, "half " + answer)
def endless(answer):
    while True: pass
def sleeping(answer): time.sleep(float(answer)); return True
def raising(answer): raise KeyError("lost")
def leaving(answer): os._exit(7)
def quitting(answer): sys.exit(3)
def printing(answer): print("x" * 200_000); sys.stdin.read(); return True
def dying(answer): print("last words", file=sys.stderr, flush=True); os.abort()
def hungry(answer): return len(bytearray(10 << 30)) > 0
def forging(answer):
    for fd in range(3, 20):
        try: os.write(fd, b"\\0\\0\\0\\0\\0\\0\\0\\x03abc")
        except OSError: pass
    return True
def parent(answer):
    child = subprocess.Popen(["sleep", "60"])
    open(answer, "w").write(str(child.pid))
    while True: pass
count = 0
def counting(answer):
    global count
    count += 1
    return count == 1
def flooding(answer):
    for stream in (sys.stdout, sys.stderr): stream.write("x" * 10_000_000)
    return True
def modules(answer): return "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "user_checks.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    import user_checks

    yield user_checks
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pool():
    with Pool(workers=1, seconds=1.0) as made:
        yield made


def isolated(function):
    return Function(function, isolated=True)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return (
        Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        if Path(f"/proc/{pid}/stat").exists()
        else True
    )


def test_verdicts_come_back(pool, user):
    assert pool.run(isolated(user.fine), "yes") == Verdict(1.0, True)
    assert pool.run(isolated(user.fine), "no") == Verdict(0.0, False)
    assert pool.run(isolated(user.verdict), "é") == Verdict(0.5, False, "half é")
    assert pool.run(isolated(user.modules), "").correct
    assert pool.run(isolated(user.printing), "").correct


def test_inline_checks_stay_here(pool):
    assert pool.run(Function(lambda a: os.getpid() == int(a)), str(os.getpid())).correct
    with pytest.raises(CheckError, match="ZeroDivisionError"):
        pool.run(Function(lambda a: 1 / 0), "")


@pytest.mark.parametrize(
    ("name", "message", "trace"),
    [
        ("endless", "took longer than its deadline (1 s)", ""),
        ("raising", "KeyError: 'lost'", "in raising"),
        ("leaving", "took its process down (exit status 7)", ""),
        ("quitting", "took its process down (exit status 3)", ""),
        ("dying", "took its process down (exit status -6)", "last words"),
        ("hungry", "MemoryError", ""),
    ],
)
def test_faults_are_errors(pool, user, name, message, trace):
    with pytest.raises(CheckError) as error:
        pool.run(isolated(getattr(user, name)), "")
    assert message in str(error.value)
    assert trace in error.value.traceback
    assert pool.run(isolated(user.fine), "yes").correct  # the pool goes on


def test_nonsense_in_place_of_a_verdict_is_an_error(pool, user):
    with pytest.raises(CheckError, match="wrote over its own verdict"):
        pool.run(isolated(user.forging), "")
    assert pool.run(isolated(user.fine), "yes").correct


def test_one_check_does_not_reach_the_next(pool, user):
    """Global state, output and processes of a check end with it, and none of it costs a new child."""
    (pid,) = pool.pids or [None]
    assert pool.run(isolated(user.counting), "").correct
    assert pool.run(isolated(user.counting), "").correct, "a check sees what an earlier one changed"
    for _ in range(3):
        assert pool.run(isolated(user.flooding), "").correct
    assert pool.pids == [pid]


def test_the_deadline_starts_when_the_work_starts(pool, user):
    async def many():
        return await asyncio.gather(*(pool.check(isolated(user.sleeping), "0.4") for _ in range(4)))

    start = time.monotonic()
    assert all(v.correct for v in asyncio.run(many()))  # 1.6 s in a queue with 1 s each
    assert time.monotonic() - start > 1.5
    assert all(v.correct for v in asyncio.run(many()))  # and from another event loop


def test_what_the_check_started_dies_with_it(pool, user, tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(CheckError, match="deadline"):
        pool.run(isolated(user.parent), str(note))
    end = time.monotonic() + 5
    while not gone(int(note.read_text())) and time.monotonic() < end:
        time.sleep(0.05)
    assert gone(int(note.read_text()))


def test_a_child_killed_while_idle_is_replaced(pool, user):
    pool.run(isolated(user.fine), "yes")
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert pool.run(isolated(user.fine), "yes").correct
    assert pid not in pool.pids


def test_closing_ends_work_and_leaves_nobody(user, monkeypatch):
    mark = f"etude-test-{time.time_ns()}"
    monkeypatch.setenv("ETUDE_TEST_MARK", mark)
    pool = Pool(workers=1, seconds=60)

    async def close_while_busy():
        work = asyncio.ensure_future(pool.check(isolated(user.endless), ""))
        while not pool.pids:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        pids = pool.pids
        await asyncio.to_thread(pool.close)
        with pytest.raises(CheckError):
            await work
        return pids

    (pid,) = asyncio.run(close_while_busy())
    assert not Path(f"/proc/{pid}").exists()  # not even a zombie
    end = time.monotonic() + 5
    while _with_mark(mark) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _with_mark(mark), "the fork in which the check ran goes on"
    pool.close()
    with pytest.raises(CheckError, match="closed"):
        pool.run(isolated(user.fine), "yes")


def _with_mark(mark: str) -> list[int]:
    """Processes that were started with this mark in their environment and still run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ended = (place / "stat").read_text().split()[2] == "Z"
            if not ended and mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_functions_that_cannot_travel_are_refused(pool):
    with pytest.raises(CheckError, match="must be picklable"):
        pool.run(isolated(lambda a: True), "")


def test_math_and_gym_in_a_child():
    from etude.tasks.gym import GymSource

    task = GymSource("countdown").draw("countdown", None, 1, 0)[0]
    with Pool(workers=1, seconds=5) as pool:
        assert pool.run(Math("\\frac{1}{2}"), "0.5").correct
        assert pool.run(task.check, task.answer).correct


def test_a_function_of_the_users_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            from etude.tasks.check import Function
            from etude.tasks.isolate import Pool
            def check(answer): return answer == "yes"
            if __name__ == "__main__":
                with Pool(1) as pool:
                    print(pool.run(Function(check, isolated=True), "yes").correct)
        """)
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_a_killed_parent_takes_its_child_along(user, tmp_path):
    code = textwrap.dedent("""
        import os, threading, time, user_checks
        from etude.tasks.check import Function
        from etude.tasks.isolate import Pool
        pool = Pool(1, seconds=60)
        work = Function(user_checks.endless, isolated=True)
        threading.Thread(target=pool.run, args=(work, ""), daemon=True).start()
        while not pool.pids: time.sleep(0.02)
        time.sleep(1)
        print(*pool.pids, flush=True)
        os.kill(os.getpid(), 9)
    """)
    path = os.pathsep.join([str(Path(__file__).parents[1] / "src"), str(Path(user.__file__).parent)])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    end = time.monotonic() + 5
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.05)
    try:
        assert gone(pid)
    finally:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def test_bad_pools():
    for wrong in ({"workers": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"memory": -1}):
        with pytest.raises(UserError, match="check pool"):
            Pool(**wrong)
