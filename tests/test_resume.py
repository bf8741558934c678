"""A run that was stopped is the run that was not: bit for bit, for every recipe, however it was stopped."""

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

import worlds_of_letters as letters
from etude.assembly import build
from etude.claims.gates import reading
from etude.claims.runs import reduced
from etude.errors import UserError
from etude.methods import catalogue
from etude.report.run import RunDirectory
from etude.search.session import Answering
from etude.train import checkpoint, setup
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start

TIMES = ("time/", "seconds", "rss_mb", "tokens_per_second")


def facts(path: Path) -> tuple[list, list]:
    """Metrics without clocks, and the tokens, log-probabilities and credit of every episode."""
    run = RunDirectory.open(path)
    metrics = [{k: v for k, v in m.items() if not k.startswith(TIMES)} for m in run.metrics()]
    rows = run.episodes(columns=["step", "tokens", "logp", "advantage", "reward"]).to_pylist()
    return metrics, rows


KEPT = ("step", "drawn", "learner", "stages", "meters", "drift", "best", "ahead")


def differences(a: Path, b: Path) -> list[str]:
    """Where the last checkpoints of two runs differ: weights, optimisers, and whatever stages remember."""
    whole, other = (checkpoint.load(p / "checkpoints")[1] for p in (a, b))
    return [where for name in KEPT for where in _unlike(whole[name], other[name], name)]


def _unlike(a: Any, b: Any, where: str) -> Iterator[str]:
    if type(a) is type(b) and (is_dataclass(a) or type(a).__eq__ is object.__eq__) and hasattr(a, "__dict__"):
        a, b = vars(a), vars(b)
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for name in a:
            yield from _unlike(a[name], b[name], f"{where}.{name}")
    elif isinstance(a, list | tuple | deque) and isinstance(b, type(a)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _unlike(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        if not (isinstance(b, torch.Tensor) and torch.equal(a, b)):
            yield where
    elif isinstance(a, np.ndarray):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            yield where
    elif hasattr(a, "bit_generator"):
        yield from _unlike(a.bit_generator.state, b.bit_generator.state, where)
    elif a != b and not (a != a and b != b):
        yield f"{where}: {a!r} {b!r}"


def same_weights(a: Path, b: Path) -> bool:
    return not [where for where in differences(a, b) if where.startswith("learner")]


def teacher(place: Path) -> dict[str, object]:
    return {"run__teacher": letters.model(place / "teacher", seed=2)}


BRISK = {  # settings with which a state that is slow by default changes within three steps
    "pudf": {"curriculum__crowd": 1, "curriculum__every": 1},
    "skill_it": {"curriculum__every": 1},
    "exp3_flad": {"curriculum__every": 1},
    "ucb1_flad": {"curriculum__every": 1},
    "self_j": {"run__group_size": 2},  # long questions about short answers
    "relift": {"curriculum__buffer_size": 1, "run__tasks_per_step": 1, "run__group_size": 2},
}


NEVER_HERE = (
    "ditto",
    "rise_editing",
)  # an answer of a letter holds neither a sentence nor a step to be edited


def asked() -> list[Any]:
    """All recipes. Of those that answer by many replies and learn as RFT does, which keep nothing from step to step, one; the
    others with pytest -m long."""
    plain, seen, made = build(catalogue()["rft"])[1], False, []
    for name, recipe in catalogue().items():
        stages = build(recipe)[1]
        own = [s for s in stages if type(stages[s]) is not type(plain.get(s))]
        alike = own == ["rollout"] and isinstance(stages["rollout"], Answering)
        made.append(pytest.param(name, marks=[pytest.mark.long] if alike and seen else []))
        seen |= alike
    return made


@pytest.mark.parametrize("recipe", asked())
def test_two_and_one_steps_are_three(recipe: str, tmp_path: Path) -> None:
    more = teacher(tmp_path) if "teacher" in catalogue()[recipe].all_needs else {}
    more |= {
        "run__checkpoint_every": 2,
        "run__tasks_per_step": 4,
        "run__oversample": 2,
        "run__group_size": 4,
        "run__eval_problems": 0,
        **BRISK.get(recipe, {}),
    }
    whole = start(letters.plan(tmp_path, recipe, 3, **more), tmp_path / "whole", letters.words())
    whole.on_step = lambda step, metrics: _copy(tmp_path / "whole", tmp_path / "half") if step == 3 else None
    train(whole)
    whole.close()

    again, warnings = resume(tmp_path / "half", letters.words())  # as a kill after the third step leaves it
    assert again.context.step == 2
    assert not warnings
    train(again)
    again.close()

    assert facts(tmp_path / "whole") == facts(tmp_path / "half")
    assert differences(tmp_path / "whole", tmp_path / "half") == []
    written = reduced(RunDirectory.open(tmp_path / "whole"), {})
    for check in catalogue()[recipe].manipulation if recipe not in NEVER_HERE else ():
        assert reading(check, written, 3) is not None, f"no run writes {check.metric}: {check.says}"


def _copy(run: Path, to: Path) -> None:
    shutil.copytree(run, to)


def _in_a_fork(place: Path) -> tuple[int, IO[bytes]]:
    """Starts the run in `place`, or resumes it, in a process of its own: its number, and a line for every step."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, os.fdopen(read, "rb")
    failed = 1
    try:
        os.close(read)
        if checkpoint.steps(place / "run" / "checkpoints"):
            run, _ = resume(place / "run", letters.words())
        else:
            plan = letters.plan(place, "grpo", 12, run__checkpoint_every=3, run__eval_problems=0)
            run = start(plan, place / "run", letters.words(), overwrite=True)
            run.checkpoint()
        run.on_step = lambda step, metrics: bool(os.write(write, b"%d\n" % step))
        train(run)
        failed = 0
    finally:
        os._exit(failed)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL at moments drawn anew each time; what is left always resumes, and ends where an unkilled run ends."""
    letters.model(tmp_path)
    whole = start(
        letters.plan(tmp_path, "grpo", 12, run__checkpoint_every=3, run__eval_problems=0),
        tmp_path / "whole",
        letters.words(),
    )
    began = time.monotonic()
    train(whole)
    step = (time.monotonic() - began) / 12
    whole.close()
    rng = np.random.default_rng()
    for _ in range(4):
        child, lines = _in_a_fork(tmp_path)
        lines.readline()  # its first step is over
        time.sleep(rng.uniform(0, 4 * step))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lines.close()
    child, lines = _in_a_fork(tmp_path)
    lines.read()
    assert os.waitpid(child, 0)[1] == 0
    assert facts(tmp_path / "whole") == facts(tmp_path / "run")
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def short(tmp_path: Path, **more) -> Path:
    run = start(
        letters.plan(tmp_path, "grpo", 4, run__checkpoint_every=2, run__eval_problems=0, **more),
        tmp_path / "run",
        letters.words(),
    )
    train(run)
    run.close()
    return tmp_path / "run"


def test_damaged_checkpoint_is_passed_over_aloud(tmp_path: Path) -> None:
    path = short(tmp_path)
    newest = path / "checkpoints" / "step-000004" / "state.pt"
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw)
    run, warnings = resume(path, letters.words())
    run.close()
    assert run.context.step == 2
    assert "step-000004' is damaged" in warnings[0]
    for step in (2, 4):
        (path / "checkpoints" / f"step-{step:06d}" / "state.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        resume(path, letters.words())


def test_half_written_checkpoint_is_never_picked_up(tmp_path: Path) -> None:
    path = short(tmp_path) / "checkpoints"
    os.rename(path / "step-000004", path / ".step-000004.tmp")
    assert checkpoint.steps(path) == [2]


def test_changed_tasks_or_config_are_named(tmp_path: Path) -> None:
    path = short(tmp_path)
    from etude.tasks import TaskSet
    from etude.types import Message, Task

    other = TaskSet.of(
        [Task((Message("user", w),), letters.First(w[0]), answer=w[0]) for w in ("ab", "ba", "cd", "dc")]
    )
    with pytest.raises(UserError, match="tasks 'words' are not those"):
        resume(path, other)
    config = json.loads((path / "config.json").read_text())
    config["stages"]["objective"]["clip_low"] = 0.3
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"was edited \(stages\.objective\.clip_low was 0\.2, is 0\.3\)"):
        resume(path, letters.words())


@pytest.mark.skipif(os.geteuid() != 0, reason="a small tmpfs can only be mounted by root")
def test_full_disk_is_one_sentence_and_resumable(tmp_path: Path) -> None:
    letters.model(tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        plan = letters.plan(tmp_path, "grpo", 40, run__checkpoint_every=2, run__eval_problems=0)
        run = start(plan, small / "run", letters.words())
        ballast = small / "ballast"
        run.on_step = lambda step, metrics: (
            ballast.write_bytes(bytes(_free(small) - 20_000)) if step == 5 else None
        )
        with pytest.raises(UserError, match="full"):
            train(run)
        run.close()
        ballast.unlink()
        again, _ = resume(small / "run", letters.words())
        assert again.context.step >= 2
        again.close()
    finally:
        subprocess.run(["umount", str(small)], check=True)


class _Interrupted(io.FileIO):
    """A file that Ctrl-C hits while something is written into it."""

    def write(self, data) -> int:
        if self.tell() > 2000:
            raise KeyboardInterrupt
        return super().write(data)


def test_an_interrupt_in_the_middle_of_a_checkpoint_is_no_full_disk(tmp_path: Path, monkeypatch) -> None:
    state = {"weights": torch.zeros(10_000)}
    checkpoint.save(tmp_path, 1, state, keep=2)
    monkeypatch.setattr(checkpoint, "open", _Interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, state, keep=2)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]
    assert checkpoint.load(tmp_path)[0] == 1


def _free(path: Path) -> int:
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which knew fewer settings, also of several values: they are now as they are by default."""
    ours = setup.describe

    def theirs(*given: Any) -> dict[str, Any]:
        found = ours(*given)
        newer = ("abstain", "confidence", "stop", "summary_tokens")
        return {**found, "settings": {k: v for k, v in found["settings"].items() if k not in newer}}

    monkeypatch.setattr(setup, "describe", theirs)
    run = start(letters.plan(tmp_path, steps=1, run__eval_problems=0), tmp_path / "run", letters.words())
    train(run)
    run.close()
    again, warnings = resume(tmp_path / "run", letters.words())
    again.close()
    assert (again.context.step, warnings, again.settings.abstain) == (1, [], ())
