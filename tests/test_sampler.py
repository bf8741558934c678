"""The samplers against the trainer, against each other, and against the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

import toys
from etude.batch import Batch, pack
from etude.errors import UserError
from etude.models.policy import Policy
from etude.models.tiny import LETTERS, tiny, tiny_directory
from etude.sampling.engine import sampler_for
from etude.sampling.hf import TransformersSampler
from etude.sampling.native import NativeSampler
from etude.sampling.protocol import Sample
from etude.types import Array, Episode, Message, SamplingParams, Signal, Span, Task

T = TypeVar("T")
PROMPTS = [
    np.array(p, np.int32) for p in ([10, 11, 12], [13], [14, 15, 16, 17, 18, 19, 20, 21, 22], [10, 11, 23])
]
WARM = SamplingParams(temperature=0.8, max_tokens=12)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny(seed=3)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 60))


def batch_of(prompts: list[Array], samples: list[Sample], sampling: SamplingParams) -> Batch:
    signals = []
    for prompt, sample in zip(prompts, samples, strict=True):
        task = Task((Message("user", str(prompt.tolist())),), check=lambda text: None)  # type: ignore[arg-type, return-value]
        spans = Span("user", prompt), Span("assistant", sample.tokens, True, sample.logp)
        signals.append(Signal(Episode(task, spans), np.ones(len(prompt) + len(sample.tokens), np.float32)))
    return pack(signals, sampling)


async def crowd(
    sampler: NativeSampler | TransformersSampler, params: SamplingParams, each: int = 3
) -> list[Sample]:
    work = [sampler.sample(p, params, 100 * i + k) for i, p in enumerate(PROMPTS) for k in range(each)]
    out = await asyncio.gather(*work)
    await sampler.close()
    return list(out)


def repeated(each: int = 3) -> list[Array]:
    return [p for p in PROMPTS for _ in range(each)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize(
    "params",
    [WARM, SamplingParams(top_k=7, top_p=0.8, max_tokens=12), SamplingParams(greedy=True, max_tokens=12)],
    ids=["warm", "cut", "greedy"],
)
def test_the_trainer_agrees_to_the_last_bit(family: str, params: SamplingParams, precision: str) -> None:
    """The gap is not small but 0, at any settings, although the one saw rectangles and the other single rows."""
    window = 6 if family == "mistral" else None
    policy = tiny(family=family, precision=precision, sliding_window=window)
    samples = run(crowd(NativeSampler(policy), params))
    batch = batch_of(repeated(), samples, params)
    on = batch.needed
    assert toys.agree(policy.score(batch).logp[on], batch.behaviour[on], precision)
    assert all(len(s.tokens) == len(s.logp) <= 12 for s in samples)


@pytest.mark.parametrize("limit", [1, 3, 128])
def test_a_request_has_the_same_answer_alone_and_in_a_crowd(policy: Policy, limit: int) -> None:
    """Whatever shares its steps: neighbours that join late and leave early are the rule with few rows."""
    together = run(crowd(NativeSampler(policy, max_rows=limit), WARM))
    for i in (0, 4, 11):

        async def alone(i: int = i) -> Sample:
            return await NativeSampler(policy).sample(PROMPTS[i // 3], WARM, 100 * (i // 3) + i % 3)

        one = run(alone())
        assert one.tokens.tolist() == together[i].tokens.tolist()
        assert one.logp.tolist() == together[i].logp.tolist()
    assert len({tuple(s.tokens) for s in together}) > 8


def test_requests_join_while_others_are_under_way(policy: Policy) -> None:
    async def work() -> tuple[list[Sample], list[Sample], int]:
        sampler = NativeSampler(policy)
        first = [asyncio.create_task(sampler.sample(p, WARM, 100 * i)) for i, p in enumerate(PROMPTS)]
        while sampler.policy.meter.generated < start + 10:
            await asyncio.sleep(0)
        second = [asyncio.create_task(sampler.sample(p, WARM, 100 * i + 1)) for i, p in enumerate(PROMPTS)]
        most = 0
        while not all(t.done() for t in [*first, *second]):
            await asyncio.sleep(0)
            most = max(most, len(sampler.live))
        assert not sampler.engine.rows
        return [t.result() for t in first], [t.result() for t in second], most

    start = policy.meter.generated
    first, second, most = run(work())
    reference = run(crowd(NativeSampler(policy), WARM))
    assert most > len(PROMPTS)
    for i in range(len(PROMPTS)):
        assert first[i].tokens.tolist() == reference[3 * i].tokens.tolist()
        assert second[i].tokens.tolist() == reference[3 * i + 1].tokens.tolist()


def test_both_samplers_and_transformers_generate_agree(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = tiny_directory(tmp_path / "m", seed=3)
    policy = Policy.load(str(path), "fp32", backbone="transformers")
    ours = run(crowd(NativeSampler(policy), WARM))
    theirs = run(crowd(TransformersSampler(policy, max_rows=5), WARM))
    for a, b in zip(ours, theirs, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        assert a.stop == b.stop
        assert np.allclose(a.logp, b.logp, atol=1e-4)
    greedy = run(crowd(NativeSampler(policy), SamplingParams(greedy=True, max_tokens=12), each=1))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    for prompt, sample in zip(PROMPTS, greedy, strict=True):
        out = model.generate(torch.tensor(prompt[None].astype(np.int64)), max_new_tokens=12, do_sample=False)
        assert out[0, len(prompt) :].tolist() == sample.tokens.tolist()


def test_an_architecture_with_absolute_positions_is_sampled_right(tmp_path: Path) -> None:
    """GPT-2: prompts of a batch are padded on the left, which must not shift their positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    path = tiny_directory(tmp_path / "m")
    size = Policy.load(str(path), "fp32").config["vocab_size"]
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.4
    )
    config.bos_token_id, config.eos_token_id = 1, 2
    (path / "model.safetensors").unlink()
    GPT2LMHeadModel(config).save_pretrained(path)
    policy = Policy.load(str(path), "fp32")
    assert policy.context == 64
    sampler = sampler_for(policy, max_rows=6)
    assert isinstance(sampler, TransformersSampler)
    samples = run(crowd(sampler, WARM))
    batch = batch_of(repeated(), samples, WARM)
    gap = (policy.score(batch).logp - batch.behaviour)[batch.needed].abs()
    assert gap.max() < 1e-4
    again = Policy.load(str(policy.save(tmp_path / "saved")), "fp32")
    assert torch.allclose(again.score(batch).logp, policy.score(batch).logp, atol=1e-5)


def test_frequencies_are_those_of_the_softmax(policy: Policy) -> None:
    params, n = SamplingParams(max_tokens=1), 4000

    async def work() -> list[Sample]:
        sampler = NativeSampler(policy, max_rows=1000)
        return list(await asyncio.gather(*(sampler.sample(PROMPTS[0], params, k) for k in range(n))))

    samples = run(work())
    tokens = torch.tensor([int(s.tokens[0]) for s in samples])
    logits = policy.backbone.exact_logits(torch.from_numpy(PROMPTS[0].astype(np.int64)), {})[-1]
    p = logits.softmax(0)
    usual = n * p > 5
    count = torch.bincount(tokens, minlength=len(p))
    chi = float(((count - n * p)[usual] ** 2 / (n * p[usual])).sum())
    freedom = int(usual.sum())
    assert freedom > 8
    assert chi < freedom + 5 * (2 * freedom) ** 0.5


def test_the_stop_token_is_part_of_the_reply() -> None:
    policy = tiny("ab", seed=1)  # nine tokens, so that <end> comes soon
    params = SamplingParams(max_tokens=30)

    async def work() -> list[Sample]:
        sampler = NativeSampler(policy)
        prompts = [np.array([3, 7, 8, 7][:n], np.int32) for n in (1, 2, 3, 4)]
        return list(await asyncio.gather(*(sampler.sample(p, params, k) for p in prompts for k in range(8))))

    samples = run(work())
    end = policy.tokenizer.stops[0]
    assert {s.stop for s in samples} >= {"end"}
    for sample in samples:
        assert (int(sample.tokens[-1]) == end) == (sample.stop == "end")
        assert end not in sample.tokens[:-1].tolist()
        assert sample.stop == "end" or len(sample.tokens) == 30


def test_published_weights_reach_the_sampler(tmp_path: Path) -> None:
    path = tiny_directory(tmp_path / "m")
    for rank in (0, 2):
        policy = Policy.load(str(path), "fp32", lora_rank=rank)
        sampler = NativeSampler(policy)
        first = run(sampler.sample(PROMPTS[0], WARM, 1))
        batch = batch_of([PROMPTS[0]], [first], WARM)
        optimiser = torch.optim.Adam([p for _, p in policy.parameters()], lr=2e-2)
        for _ in range(5):
            (-policy.outputs(batch).logp.sum()).backward()
            policy.grad_accumulate()
            optimiser.step()
            optimiser.zero_grad()
            policy.publish()
        second = run(NativeSampler(policy).sample(PROMPTS[0], WARM, 1))
        assert (first.version, second.version) == (0, 5)
        n = min(len(first.tokens), len(second.tokens))
        assert second.logp[:n].sum() > first.logp[:n].sum() + 1
        again = batch_of([PROMPTS[0]], [second], WARM)
        assert (policy.score(again).logp - again.behaviour)[again.needed].abs().max() < 1e-4


def test_a_hold_keeps_the_next_step_waiting(policy: Policy) -> None:
    """Two requests, one of which comes after a wait outside: they share every step, however long it takes."""

    async def work() -> list[int]:
        sampler = NativeSampler(policy)
        sizes: list[int] = []
        step = sampler._step

        def watched() -> None:
            step()
            sizes.append(len(sampler.live))

        sampler._step = watched  # type: ignore[method-assign]

        async def late() -> Sample:
            async with sampler.hold():
                await asyncio.sleep(0.05)
                return_later = sampler.sample(PROMPTS[1], WARM, 2)
            return await return_later

        await asyncio.gather(sampler.sample(PROMPTS[0], WARM, 1), late())
        return sizes

    assert run(work())[0] == 2


def test_a_step_waits_for_requests_that_are_about_to_come(policy: Policy) -> None:
    """A rollout that needs a few rounds of the event loop to ask is not left out of the step."""

    async def work() -> int:
        sampler = NativeSampler(policy)
        first: list[int] = []
        step = sampler._step

        def watched() -> None:
            step()
            first.append(len(sampler.live))

        sampler._step = watched  # type: ignore[method-assign]

        async def slow(rounds: int) -> Sample:
            for _ in range(rounds):
                await asyncio.sleep(0)
            return await sampler.sample(PROMPTS[0], WARM, rounds)

        await asyncio.gather(*(slow(r) for r in range(0, 9, 2)))
        return first[0]

    assert run(work()) == 5


def test_closing_and_giving_up(policy: Policy) -> None:
    async def work() -> None:
        sampler = NativeSampler(policy)
        async with sampler.hold():
            waiting = asyncio.create_task(sampler.sample(PROMPTS[0], WARM, 1))
            await asyncio.sleep(0)
            given_up = asyncio.create_task(sampler.sample(PROMPTS[1], WARM, 1))
            await asyncio.sleep(0)
            given_up.cancel()
        before = policy.meter.prefilled
        await waiting
        assert policy.meter.prefilled - before == len(PROMPTS[0])
        assert given_up.cancelled()
        async with sampler.hold():
            never = asyncio.create_task(sampler.sample(PROMPTS[0], WARM, 1))
            await asyncio.sleep(0)
            await sampler.close()
            with pytest.raises(UserError, match="closed"):
                await never
        with pytest.raises(UserError, match="closed"):
            await sampler.sample(PROMPTS[0], WARM, 1)
        await sampler.close()

    run(work())


@pytest.mark.parametrize("failing", ["step", "prefill"])
def test_an_error_in_a_step_reaches_every_caller(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async def work() -> None:
        sampler = NativeSampler(policy)
        monkeypatch.setattr(sampler.engine, failing, lambda *given: 1 / 0)
        tasks = [sampler.sample(p, WARM, 1) for p in PROMPTS]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(r, ZeroDivisionError) for r in results)
        assert len((await sampler.sample(PROMPTS[0], WARM, 1)).tokens)

    run(work())


@pytest.mark.parametrize(
    ("prompt", "params", "words"),
    [
        ([], WARM, "prompt"),
        ([10] * 5000, WARM, "prompt"),
        ([10, 5000], WARM, "vocabulary"),
        ([-1], WARM, "vocabulary"),
        ([10], SamplingParams(temperature=0.0), "temperature"),
        ([10], SamplingParams(top_p=0.0), "top_p"),
        ([10], SamplingParams(max_tokens=0), "max_tokens"),
    ],
)
def test_bad_requests_are_refused(
    policy: Policy, prompt: list[int], params: SamplingParams, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        run(NativeSampler(policy).sample(np.array(prompt, np.int32), params, 0))


def test_memory_bounds_how_many_are_let_in(policy: Policy) -> None:
    async def work(memory: int) -> tuple[list[Sample], int]:
        sampler = NativeSampler(policy, memory=memory)
        most = 0
        step = sampler._step

        def watched() -> None:
            nonlocal most
            step()
            most = max(most, len(sampler.live))

        sampler._step = watched  # type: ignore[method-assign]
        return await crowd(sampler, WARM), most

    token = NativeSampler(policy).engine.bytes_per_token()
    all_, many = run(work(1 << 30))
    few, some = run(work(3 * 512 * token))
    one, single = run(work(1))
    assert many == len(repeated()) > some > single == 1
    assert (
        [s.tokens.tolist() for s in all_]
        == [s.tokens.tolist() for s in few]
        == [s.tokens.tolist() for s in one]
    )


def test_the_meter_counts_a_shared_prompt_once(policy: Policy) -> None:
    before = policy.meter.prefilled, policy.meter.generated
    samples = run(crowd(NativeSampler(policy), WARM))
    assert policy.meter.prefilled - before[0] == sum(len(p) for p in PROMPTS)
    assert policy.meter.generated - before[1] == sum(len(s.tokens) for s in samples)
    assert policy.meter.flops > 0
    assert len(LETTERS) > 80
