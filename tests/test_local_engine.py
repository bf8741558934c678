"""Servers that a run starts itself: with an environment that holds the scripted engine instead of vLLM."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

import worlds_of_letters as letters
from etude.errors import UserError
from etude.models.policy import Policy
from etude.scale import local
from etude.scale.place import Place
from etude.scale.sampler import EngineSampler
from etude.types import SamplingParams

TESTS = Path(__file__).parent
SERVER = f"""
import argparse, subprocess, sys, time
sys.path.insert(0, {str(TESTS)!r})
words = argparse.ArgumentParser()
for name in ("model", "served-model-name", "host", "logprobs-mode", "generation-config", "max-model-len"):
    words.add_argument("--" + name)
words.add_argument("--port", type=int)
words.add_argument("--gpu-memory-utilization")
words.add_argument("--enable-scale-out", action="store_true")
words.add_argument("--enable-prefix-caching", action="store_true")
words.add_argument("--fail", action="store_true")
given = words.parse_args()
assert given.enable_scale_out and given.logprobs_mode == "processed_logprobs"
if given.fail:
    raise ValueError("no memory for the cache")
import conftest
from http.server import ThreadingHTTPServer
from scripted_engine import Engine, handler
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # as the real one has its core in a child
engine = Engine(given.model, longest=int(given.max_model_len))
ThreadingHTTPServer((given.host, given.port), handler(engine)).serve_forever()
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine's environment."""
    where = tmp_path / "environment"
    code = where / "code" / "vllm" / "entrypoints" / "openai"
    code.mkdir(parents=True)
    for folder in (code, code.parent, code.parent.parent):
        (folder / "__init__.py").write_text("")
    (code / "api_server.py").write_text(SERVER)
    (where / "bin").mkdir()
    path = os.pathsep.join([str(where / "code"), *sys.path])
    (where / "bin" / "python").write_text(f"#!/bin/sh\nPYTHONPATH='{path}' exec '{sys.executable}' \"$@\"\n")
    (where / "bin" / "python").chmod(0o755)
    (where / "installed").write_text("scripted")
    monkeypatch.setattr(local, "environment", lambda: where)
    monkeypatch.setattr(local, "logs", lambda: tmp_path / "logs")
    return where


def family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_a_server_is_started_killed_started_again_and_ended(installed: Path, tmp_path: Path) -> None:
    policy = Policy.load(letters.model(tmp_path), "fp32")
    prompt, params = np.array([3, 7, 8], np.int32), SamplingParams(max_tokens=4)

    async def work() -> None:
        place = Place.of({"engines": {"count": 1, "weights": str(tmp_path / "weights"), "patience": 20.0}})
        sampler = await place.sampler(policy, 8, 64)
        assert isinstance(sampler, EngineSampler)
        assert sampler.fleet.longest == 64
        policy.publish()
        await sampler.refresh()
        first = await sampler.sample(prompt, params, 1)
        process = place._servers[0].process
        assert process is not None
        old = family(process.pid)
        assert len(old) == 2
        os.killpg(process.pid, signal.SIGKILL)
        again = await sampler.sample(prompt, params, 1)  # started again, with the weights of now
        assert np.array_equal(again.tokens, first.tokens)
        assert again.version == policy.version == 1
        process = place._servers[0].process
        assert process is not None
        new = family(process.pid)
        await place.close()
        assert gone([*old, *new])
        assert not any((tmp_path / "weights").iterdir())

    asyncio.run(work())


def test_a_server_that_cannot_start_says_why(installed: Path, tmp_path: Path) -> None:
    policy = Policy.load(letters.model(tmp_path), "fp32")
    place = Place.of({"engines": {"count": 1, "options": ["--fail"]}})
    with pytest.raises(
        UserError, match="ended at its start: ValueError: no memory for the cache; see"
    ) as caught:
        asyncio.run(place.sampler(policy, 8, 64))
    assert "\n" not in str(caught.value)


DRIVER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest
from etude.models.policy import Policy
from etude.scale import local, place
from etude.scale.place import Place
place.SHARED = Path({shared!r})
local.environment = lambda: Path({environment!r})
local.logs = lambda: Path({logs!r})
async def work():
    place = Place.of({{"engines": {{"count": 1}}}})
    await place.sampler(Policy.load({model!r}, "fp32"), 8, 64)
    print(place._servers[0].process.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(work())
"""


def test_servers_end_with_the_run_that_is_killed(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    code = DRIVER.format(
        shared=str(shared),
        tests=str(TESTS),
        environment=str(installed),
        logs=str(tmp_path / "logs"),
        model=letters.model(tmp_path),
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert driver.stdout is not None
    processes = family(int(driver.stdout.readline()))
    assert len(processes) == 2
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert gone(processes)
    assert list(shared.iterdir())  # nobody was there to remove its weights: the next run on this machine does
    monkeypatch.setattr("etude.scale.place.SHARED", shared)
    assert asyncio.run(Place.of({"engines": {"count": 1}}).examine()) == []
    assert not list(shared.iterdir())
