"""Ctrl-C while training: one sentence, exit code 130, and a run that goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etude.models.tiny import tiny_directory
from etude.train import checkpoint
from etude.train.interrupt import WAIT, patient


def test_one_sentence_and_a_run_that_resumes(tmp_path: Path) -> None:
    model = tiny_directory(tmp_path / "m", "abcd0123456789+=")
    tasks = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(6) for b in range(6)]
    tasks.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = (
        "precision=fp32",
        "max_tokens=2",
        "tasks_per_step=2",
        "group_size=2",
        "eval_problems=2",
        "preflight=1",
    )
    command = [
        sys.executable,
        "-m",
        "etude",
        "train",
        "grpo",
        "-m",
        str(model),
        "-t",
        str(tasks),
        "--steps",
        "100000",
    ]
    command += ["--force", "--out", str(tmp_path / "run"), "--set", "run.checkpoint_every=100000"]
    command += [part for s in settings for part in ("--set", f"run.{s}")]
    source = str(Path(__file__).parents[1] / "src")
    env = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    # A background job of a shell ignores SIGINT and hands that down; a terminal does not.
    restored = "import signal, os, sys; signal.signal(signal.SIGINT, signal.default_int_handler); os.execv(sys.argv[1], sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", restored, *command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        metrics, end = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
        while not metrics.exists() or metrics.read_text().count("\n") < 7:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    steps = (tmp_path / "run" / "metrics.jsonl").read_text().count("\n")
    assert f"{WAIT}\n" in err
    assert f"stopped after step {steps}, which is kept\n" in err
    assert "interrupted; `etude resume` goes on from the last checkpoint" in err
    assert "Traceback" not in err + out
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == steps, "nothing is lost"


def test_a_second_interrupt_does_not_wait() -> None:
    usual, said = signal.getsignal(signal.SIGINT), []
    with patient(said.append) as asked:
        assert not asked()
        signal.raise_signal(signal.SIGINT)
        assert asked()
        assert said == [WAIT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is usual


def test_who_listens_to_interrupts_already_goes_on_listening() -> None:
    heard: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with patient(lambda text: None) as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, usual)
    assert heard == [signal.SIGINT]


def test_an_interrupt_among_many_coroutines_leaves_no_traceback(tmp_path: Path) -> None:
    """Where it hits a task, asyncio would print that task's traceback when the loop is gone."""
    code = """
import asyncio, gc
from etude.event_loop import EventLoop
async def waits(): await asyncio.sleep(60)
async def hit(): raise KeyboardInterrupt
async def together(): await asyncio.gather(*(asyncio.ensure_future(c) for c in (waits(), hit(), waits())))
loop = EventLoop()
try:
    loop.run(together())
except KeyboardInterrupt:
    pass
loop.close()
gc.collect()
print("ended")
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")
