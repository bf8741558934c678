"""The gradient from what sampling computed, against the gradient of forwarding again: the same bits."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

import toys
from etude.batch import Batch, pack
from etude.models import activation_cache, kernels
from etude.models.policy import Policy
from etude.models.tiny import tiny
from etude.sampling.engine import sampler_for
from etude.types import Episode, Message, SamplingParams, Signal, Span, Task

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no native kernels on this machine")
PROMPTS = [list(range(10, 10 + n)) for n in (3, 16, 21)] + [[7]]


def sampled(policy: Policy, each: int = 4, more: bool = False, recording: bool = True) -> Batch:
    """Replies to `PROMPTS`, and where `more` is asked for, a second turn that goes on from each."""

    async def work() -> list[Signal]:
        sampler, signals = sampler_for(policy, max_rows=7), []

        async def one(i: int, prompt: list[int], k: int) -> None:
            task = Task((Message("user", str(i)),), check=lambda text: None)  # type: ignore[arg-type, return-value]
            spans, tokens = [Span("user", np.array(prompt, np.int32))], np.array(prompt, np.int32)
            for turn in range(1 + more):
                said = await sampler.sample(
                    tokens, SamplingParams(max_tokens=5 + 4 * k), 100 * i + 10 * turn + k
                )
                spans.append(Span("assistant", said.tokens, True, said.logp))
                tokens = np.concatenate([tokens, said.tokens])
                if turn < more:
                    spans.append(Span("user", np.array([40, 41], np.int32)))
                    tokens = np.concatenate([tokens, spans[-1].tokens])
            signals.append(Signal(Episode(task, tuple(spans), index=k), np.ones(len(tokens), np.float32)))

        await asyncio.gather(*(one(i, p, k) for i, p in enumerate(PROMPTS) for k in range(each)))
        await sampler.close()
        return sorted(signals, key=lambda s: (s.episode.task.key, s.episode.index))

    with policy.recording(recording):
        return pack(asyncio.run(work()))


def gradients(policy: Policy, batch: Batch) -> tuple[bool, list[torch.Tensor]]:
    out = policy.outputs(batch, frozenset({"entropy", "hidden"}))
    assert out.entropy is not None
    assert out.hidden is not None
    slope = torch.linspace(-1, 2, len(batch))
    (out.logp * slope + out.entropy * slope.flip(0) + out.hidden.pow(2).sum(1)).sum().backward()
    policy.grad_accumulate()
    found = [
        out.logp.detach().clone(),
        *(p.grad.clone() for _, p in policy.parameters() if p.grad is not None),
    ]
    for _, p in policy.parameters():
        p.grad = None
    return out.replayed, found


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("more", [False, True], ids=["one turn", "two turns"])
def test_the_cache_gives_the_same_bits(family: str, more: bool) -> None:
    window = 6 if family == "mistral" else None
    policy = tiny(precision="bf16", seed=5, family=family, sliding_window=window)
    batch = sampled(policy, more=more)
    replayed, mine = gradients(policy, batch)
    weights = policy.backbone.native()
    assert weights is not None
    weights.activations = None
    again, theirs = gradients(policy, batch)
    assert replayed
    assert not again
    assert len(mine) == len(theirs) == 1 + len(policy.parameters())
    assert all(toys.agree(a, b, "bf16") for a, b in zip(mine, theirs, strict=True))


def test_a_part_of_the_batch_is_found_too() -> None:
    policy = tiny(precision="bf16", seed=5)
    batch = sampled(policy)
    keep = batch.group == 1
    replayed, mine = gradients(policy, batch.take(keep))
    policy.publish()
    again, theirs = gradients(policy, batch.take(keep))
    assert (replayed, again) == (True, False)
    assert all(toys.agree(a, b, "bf16") for a, b in zip(mine, theirs, strict=True))


def test_what_is_not_cached_is_computed() -> None:
    """Other tokens, new weights, sampling outside, a cache that grew too large: never a wrong row."""
    policy = tiny(precision="bf16", seed=5)
    batch = sampled(policy)
    changed = batch.tokens.clone()
    changed[3] += 1
    assert not policy.outputs(batch, inputs=changed).replayed
    with torch.no_grad():
        assert not policy.outputs(batch).replayed
    assert policy.outputs(batch).replayed
    policy.publish()
    assert not policy.outputs(batch).replayed
    assert not policy.outputs(sampled(policy, recording=False)).replayed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activation_cache, "LIMIT", 100_000)
        batch = sampled(policy)
    weights = policy.backbone.native()
    assert weights is not None
    assert weights.activations is not None
    assert not weights.activations.parts
    assert not policy.outputs(batch).replayed
