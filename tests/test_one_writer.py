"""One process writes a run: the second is refused, a killed one leaves no lock, and no refusal leaves anything."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude import cli
from etude.compare.arms import parse_arms
from etude.compare.comparison import Comparison, run_comparison
from etude.errors import UserError
from etude.report.lock import Lock
from etude.report.run import RunDirectory
from etude.train import session
from etude.train.config import Budget
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start

HOLD = "import sys; from pathlib import Path; from etude.report.lock import Lock; lock = Lock(Path(sys.argv[1])); "
HOLD += "print('held', flush=True); sys.stdin.read()"


def holder(place: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()


def plan(place: Path, steps: int = 2, **more):
    return letters.plan(place, "grpo", steps, **{"run__eval_problems": 4, "run__tasks_per_step": 4, **more})


def test_the_second_is_refused_and_a_killed_first_leaves_no_lock(tmp_path: Path) -> None:
    run = start(plan(tmp_path), tmp_path / "run", letters.words())
    train(run)
    run.close()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != ".lock"}
    child = holder(tmp_path / "run")
    for second in (
        lambda: resume(tmp_path / "run", letters.words()),
        lambda: start(plan(tmp_path), tmp_path / "run", letters.words(), overwrite=True),
    ):
        with pytest.raises(UserError, match=f"process {child.pid} is at work on the run in"):
            second()
    after = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
    end(child)
    again, _ = resume(tmp_path / "run", letters.words())
    again.close()


def test_a_comparison_has_one_writer(tmp_path: Path) -> None:
    contest = Comparison(
        parse_arms(["grpo"]),
        letters.model(tmp_path),
        "chain_sum",
        Budget(2, "steps"),
        range(2),
        tmp_path / "out",
    )
    child = holder(tmp_path / "out")
    with pytest.raises(UserError, match=f"process {child.pid} is at work on the comparison"):
        run_comparison(contest)
    end(child)
    assert not (tmp_path / "out" / "contest.json").exists()


def test_a_lock_leaves_only_what_was_there(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "a" / "b")
    lock.release(discard=True)
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    Lock(tmp_path / "mine").release(discard=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_a_refused_first_try_leaves_nothing(tmp_path: Path, capsys) -> None:
    rows = [{"prompt": w, "answer": "zzz"} for w in ("ab", "cd", "ef", "gh", "ij", "kl")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [
        "train",
        "grpo",
        "-m",
        letters.model(tmp_path),
        "-t",
        str(tmp_path / "t.jsonl"),
        "--steps",
        "1",
    ]
    command += ["--out", str(tmp_path / "runs" / "r")]
    for name in ("max_tokens=2", "eval_problems=0", "tasks_per_step=2"):
        command += ["--set", f"run.{name}"]
    assert cli.run([*command, "--log", "pigeon"]) == 2
    assert "there is no tracker 'pigeon'" in capsys.readouterr().err
    assert cli.run(command) == 2
    assert "nothing can be learned" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert cli.run([*command, "--force", "-q"]) == 0
    kept = (tmp_path / "runs" / "r" / "metrics.jsonl").read_bytes()
    assert cli.run([*command, "--overwrite"]) == 2, "a refusal deletes no earlier run"
    assert (tmp_path / "runs" / "r" / "metrics.jsonl").read_bytes() == kept


def test_a_run_cut_off_before_its_first_checkpoint_is_begun_again(tmp_path: Path) -> None:
    start(plan(tmp_path), tmp_path / "run", letters.words()).close()
    with pytest.raises(UserError, match="another plan, cut off before its first checkpoint"):
        start(plan(tmp_path, 3), tmp_path / "run", letters.words())
    run = start(plan(tmp_path), tmp_path / "run", letters.words())
    run.checkpoint()
    run.close()
    with pytest.raises(UserError, match="already holds a run; resume it, choose another --out, or delete it"):
        start(plan(tmp_path), tmp_path / "run", letters.words())


@pytest.mark.parametrize("cut", [0, 2])
def test_cut_off_before_its_first_evaluation_it_still_gets_one(tmp_path: Path, cut: int) -> None:
    whole = start(plan(tmp_path, 4), tmp_path / "whole", letters.words())
    session.run_session(whole, force=True, keep_model=False)
    run = start(plan(tmp_path, 4, run__checkpoint_every=2), tmp_path / "run", letters.words())
    run.checkpoint()
    if cut:
        run.on_step = lambda step, metrics: (_ for _ in ()).throw(KeyboardInterrupt) if step == 3 else None
        with pytest.raises(KeyboardInterrupt):
            train(run)
    run.close()
    again, _ = resume(tmp_path / "run", letters.words())
    assert again.context.step == cut
    session.run_session(again, fresh=False, keep_model=False)
    wanted, found = (RunDirectory.open(tmp_path / name).evals() for name in ("whole", "run"))
    assert [e["rule"] for e in found] == ["before", "last"]
    assert [e["per_problem"] for e in found] == [e["per_problem"] for e in wanted]
    again, _ = resume(tmp_path / "run", letters.words())
    session.run_session(again, fresh=False, keep_model=False)
    assert len(RunDirectory.open(tmp_path / "run").evals()) == 2, "a finished run is not evaluated twice"


def test_an_evaluation_on_the_way_that_is_cut_off_is_made_again(tmp_path: Path) -> None:
    more = {"run__evals": 1, "run__checkpoint_every": 2}
    run = start(plan(tmp_path, 4, **more), tmp_path / "run", letters.words())
    run.checkpoint()

    def cut(rule: str) -> None:
        raise KeyboardInterrupt

    run.evaluate = cut
    with pytest.raises(KeyboardInterrupt):
        train(run)
    run.close()
    again, _ = resume(tmp_path / "run", letters.words())
    train(again)
    again.close()
    assert [e["step"] for e in RunDirectory.open(tmp_path / "run").evals()] == [2]


WAITS = """
import sys, time
from pathlib import Path
from etude.compare import schedule
schedule.WORKER = schedule.WORKER.partition("from importlib")[0] + "print('up', flush=True); import time; time.sleep(60)"
schedule.run_all([schedule.Job("a", 0, {}, Path(sys.argv[1]) / "seed-0")], 1, print)
"""


@pytest.mark.parametrize("end_by", [signal.SIGTERM, signal.SIGKILL])
def test_a_comparison_takes_its_workers_along(tmp_path: Path, end_by: signal.Signals) -> None:
    import psutil

    parent = subprocess.Popen([sys.executable, "-c", WAITS, str(tmp_path)], stdout=subprocess.DEVNULL)
    log = tmp_path / "seed-0.log"
    deadline = time.time() + 60
    while not (log.exists() and "up" in log.read_text()) and time.time() < deadline:
        time.sleep(0.1)
    (worker,) = psutil.Process(parent.pid).children()
    parent.send_signal(end_by)
    parent.wait()
    _, alive = psutil.wait_procs([worker], timeout=5)
    for process in alive:
        process.kill()
    assert not alive


def test_all_arms_are_examined_alike(tmp_path: Path) -> None:
    from etude.compare.comparison import _plan
    from etude.train.setup import resolve

    def contest(*arms: str, **changes: str) -> Comparison:
        return Comparison(
            parse_arms(arms), "smollm2", "chain_sum", Budget(2, "steps"), range(2), tmp_path, changes
        )

    both = contest("grpo", "cool=grpo:run.temperature=0.6,run.max_tokens=8", "t1")
    exams = [resolve(_plan(both, arm, 0))[1].exam for arm in both.arms]
    assert exams[0] == exams[1] == exams[2]
    assert exams[0].temperature == 1.0
    shared = contest("grpo", "t1", **{"run.temperature": "0.7"})
    assert [resolve(_plan(shared, arm, 0))[1].exam.temperature for arm in shared.arms] == [0.7, 0.7]
    with pytest.raises(UserError, match=r"arm a sets run\.eval_temperature"):
        run_comparison(contest("a=grpo:run.eval_temperature=0.5", "grpo"))
    with pytest.raises(UserError, match="no name for an arm"):
        parse_arms(["..=grpo"])
