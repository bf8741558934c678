"""A real vLLM server behind `EngineSampler`: SmolLM2, its log-probabilities, new weights, a server that is killed, and a run.
Needs the engine's own environment (`etude engine install`); run with `make long`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude import seeds
from etude.batch import Batch, pack
from etude.errors import UserError
from etude.models.policy import Policy
from etude.report.run import RunDirectory
from etude.scale import local
from etude.scale.place import Place
from etude.scale.sampler import EngineSampler
from etude.text.stream import reached
from etude.train.config import Budget, Plan
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from etude.types import Episode, Message, SamplingParams, Signal, Span, Task

pytestmark = pytest.mark.long
SMALL = ["--enforce-eager", "--max-num-seqs", "32", local.MEMORY, "0.15"]


def place(count: int = 1) -> Place:
    try:
        local.python()
    except UserError as error:
        pytest.skip(str(error))
    return Place.of({"engines": {"count": count, "options": SMALL, "deadline": 900.0}})


@pytest.fixture(scope="module")
def engine() -> Iterator[tuple[asyncio.AbstractEventLoop, Place, EngineSampler]]:
    loop, where = asyncio.new_event_loop(), place()
    sampler = loop.run_until_complete(where.sampler(Policy.load("smollm2"), 32, 512))
    assert isinstance(sampler, EngineSampler)
    loop.run_until_complete(sampler.refresh())
    yield loop, where, sampler
    loop.run_until_complete(where.close())
    loop.close()


def asked(policy: Policy, n: int) -> list[np.ndarray]:
    words = [f"What is {i} plus {2 * i + 1}? Explain." for i in range(n)]
    return [np.asarray(policy.renderer.prompt((Message("user", w),)), np.int32) for w in words]


def replies(loop: Any, sampler: EngineSampler, params: SamplingParams, n: int = 16) -> list[Any]:
    async def every() -> list[Any]:
        work = (sampler.sample(p, params, seeds.key("x", i)) for i, p in enumerate(asked(sampler.policy, n)))
        return list(await asyncio.gather(*work))

    return list(loop.run_until_complete(every()))


def laid(policy: Policy, found: list[Any], params: SamplingParams) -> Batch:
    signals = []
    for prompt, reply in zip(asked(policy, len(found)), found, strict=True):
        spans = (Span("user", prompt), Span("assistant", reply.tokens, True, reply.logp))
        task = Task(str(len(signals)), lambda answer: None)  # type: ignore[arg-type, return-value]
        episode = Episode(task, spans)
        signals.append(Signal(episode, np.zeros(len(episode.tokens), np.float32)))
    return pack(signals, params)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=48),
        SamplingParams(0.7, max_tokens=48),
        SamplingParams(top_k=20, max_tokens=48),
        SamplingParams(top_p=0.9, max_tokens=48),
        SamplingParams(greedy=True, max_tokens=48),
    ],
)
def test_its_log_probabilities_are_ours_but_for_rounding(engine: Any, params: SamplingParams) -> None:
    loop, _, sampler = engine
    batch = laid(sampler.policy, replies(loop, sampler, params), params)
    gap = (batch.behaviour - sampler.policy.score(batch).logp)[batch.sampled].double()
    assert len(gap) > 300
    assert gap.abs().mean() < 0.05
    assert gap.mean().abs() < 0.01
    assert (torch.expm1(-gap) + gap).mean() < 5e-3


def test_a_reply_ends_at_a_stop_string(engine: Any) -> None:
    """The server is not told of it: a reply is the one without it, up to the token that completes it."""
    loop, _, sampler = engine
    decode = sampler.policy.renderer.decode
    whole = replies(loop, sampler, SamplingParams(max_tokens=48))
    cut = replies(loop, sampler, SamplingParams(max_tokens=48, stop=("\n", ". ")))
    ended = 0
    for free, short in zip(whole, cut, strict=True):
        n = reached(decode, free.tokens.tolist(), ("\n", ". ")) or len(free.tokens)
        assert short.tokens.tolist() == free.tokens[:n].tolist()
        assert short.logp.tolist() == free.logp[:n].tolist()
        ended += short.stop == "cut"
    assert ended > 4


def test_new_weights_arrive_and_old_ones_come_back(engine: Any) -> None:
    loop, _, sampler = engine
    policy, params = sampler.policy, SamplingParams(max_tokens=16)
    before = replies(loop, sampler, params)
    kept = {n: p.detach().clone() for n, p in policy.parameters()}
    with torch.no_grad():
        for name, p in policy.parameters():
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name)))
            p.add_(0.02 * p.std() * noise)
    policy.publish()
    loop.run_until_complete(sampler.refresh())
    assert sampler.fleet.gap < 0.2
    moved = replies(loop, sampler, params)
    assert {r.version for r in moved} == {policy.version}
    assert any(not np.array_equal(a.tokens, b.tokens) for a, b in zip(before, moved, strict=True))
    with torch.no_grad():
        for name, p in policy.parameters():
            p.copy_(kept[name])
    policy.publish()
    loop.run_until_complete(sampler.refresh())
    back = replies(loop, sampler, params)
    assert all(np.array_equal(a.logp, b.logp) for a, b in zip(before, back, strict=True))


def test_a_server_that_is_killed_is_started_again(engine: Any) -> None:
    loop, where, sampler = engine
    process = where._servers[0].process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = replies(loop, sampler, SamplingParams(max_tokens=4), 4)
    assert [len(r.tokens) > 0 for r in found] == [True] * 4
    assert where._servers[0].process.pid != process.pid


def test_a_run_on_engines_and_its_end(tmp_path: Path) -> None:
    """Two steps, a checkpoint, two more; nothing that was started is left."""
    changes = {
        "run.tasks_per_step": "4",
        "run.group_size": "8",
        "run.max_tokens": "32",
        "run.eval_problems": "4",
    }
    plan = Plan("grpo", "smollm2", "chain_sum:max_terms=2,max_digits=2", Budget(2, "steps"), 0, changes)
    where = place()
    run = start(plan, tmp_path / "run", place=where)
    run.checkpoint()
    process = where._servers[0].process
    assert process is not None
    train(run)
    run.evaluate("last")
    run.close()
    assert process.poll() is not None
    metrics = RunDirectory.open(tmp_path / "run").metrics()
    gaps = [m["gap"] for m in metrics if m["signal_tokens"] > 0]
    assert gaps
    assert max(gaps) < 0.1
    again, warnings = resume(tmp_path / "run", place=place())
    assert not warnings
    again.close()
    time.sleep(1)
    assert not list(Path("/dev/shm").glob(f"etude-{os.getpid()}-*"))
