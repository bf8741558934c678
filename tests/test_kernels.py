"""The native kernels against the PyTorch code that they replace, values and gradients, and both against float32."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from etude.models import attention, forward, head, kernels
from etude.models.attention import attender
from etude.models.layout import layout
from etude.models.policy import Policy
from etude.models.tiny import tiny
from etude.models.weights import Weights
from etude.sampling.engine import sampler_for
from etude.sampling.native import NativeSampler
from etude.sampling.paged import PagedEngine
from etude.types import SamplingParams

needed = pytest.mark.skipif(kernels.library() is None, reason="no native kernels on this machine")
Change = Callable[[], None]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Change]:
    """From its call on, PyTorch computes."""
    return lambda: monkeypatch.setattr(kernels, "library", lambda: None)


def random(*size: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pulled(compute: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """A result and its gradients in all inputs, for a fixed direction."""
    given = [x.clone().requires_grad_() for x in inputs]
    out = compute(*given)
    out.backward(random(*out.shape, seed=9, dtype=out.dtype))
    return [out.detach(), *(x.grad for x in given if x.grad is not None)]


def near(mine: list[Tensor], theirs: list[Tensor], exact: list[Tensor]) -> None:
    """Each as near to float32 as PyTorch's bfloat16 is (and far from the wrong sign)."""
    assert len(mine) == len(theirs) == len(exact)
    for a, b, true in zip(mine, theirs, exact, strict=True):
        size = true.float().norm()
        error, other = (a.float() - true.float()).norm() / size, (b.float() - true.float()).norm() / size
        assert error < 1.5 * other + 1e-4, (error, other)
        assert error < 0.03


@needed
@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("width", [48, 100])
def test_norm_and_gate(rows: int, width: int, without: Change) -> None:
    hidden, weight = random(rows, width, dtype=torch.float32), random(width, seed=1, dtype=torch.float32)
    matrix, gate_up = random(40, width, seed=2), random(rows, 2 * width, seed=3)
    down = random(24, width, seed=4)

    def norm_linear(precision: torch.dtype) -> list[Tensor]:
        return pulled(
            lambda h, w, m: forward.norm_linear(h, w, m, None, 1e-5), hidden, weight, matrix.to(precision)
        )

    def gated(precision: torch.dtype) -> list[Tensor]:
        return pulled(forward.gated_linear, gate_up.to(precision), down.to(precision))

    for compute in (norm_linear, gated):
        mine = compute(torch.bfloat16)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "library", lambda: None)
            near(mine, compute(torch.bfloat16), compute(torch.float32))


SHAPES = [  # heads, key heads, head width, window
    (9, 3, 64, 0),
    (4, 4, 32, 0),
    (4, 1, 16, 5),
    (16, 1, 48, 40),
    (6, 2, 128, 0),
]


@needed
@pytest.mark.parametrize(("heads", "kv", "width", "window"), SHAPES)
def test_attention(heads: int, kv: int, width: int, window: int, without: Change) -> None:
    """Over shared beginnings of several lengths, among them one that fills whole pages and none at all."""
    policy = tiny(width=heads * 16, heads=heads, kv_heads=kv, head_dim=width, precision="bf16")
    weights = policy.backbone.native()
    assert weights is not None
    lengths = [(5, (3, 1, 40)), (5, (2, 2)), (16, (1, 17)), (0, (70,)), (130, (2, 2, 9))]
    tokens, sequence, number = [], [], 0
    for i, (common, own) in enumerate(lengths):
        for k, n in enumerate(own):
            tokens += [i + 1] * common + [10 + 5 * i + k] * n
            sequence += [number] * (common + n)
            number += 1
    rows = layout(torch.tensor(tokens), torch.tensor(sequence), attention.key_unit(torch.bfloat16))
    object.__setattr__(weights.config, "windows", (window,) * weights.config.layers)
    z = random(len(rows), heads + 2 * kv, width)

    def compute(weights: Weights, z: Tensor) -> list[Tensor]:
        return pulled(lambda x: attender(weights, rows)(0, x), z)

    mine = compute(weights, z)
    without()
    exact = Weights(weights.config, {}, "fp32")
    near(mine, compute(weights, z), compute(exact, z.float()))


@needed
@pytest.mark.parametrize(("size", "temperature"), [(33, 1.0), (5120, 0.7), (49152, 1.0)])
def test_the_head(size: int, temperature: float, without: Change) -> None:
    hidden, matrix = 3 * random(11, 64, dtype=torch.float32), random(size, 64, seed=1)
    chosen = torch.randint(size, (11,), generator=torch.Generator().manual_seed(2))
    chosen[0] = (hidden[0] @ matrix.float().t()).argmax()
    params = SamplingParams(temperature)

    def compute(matrix: Tensor) -> list[Tensor]:
        def both(h: Tensor, m: Tensor) -> Tensor:
            return torch.stack(head.log_probabilities(h, m, chosen, params, True))

        return pulled(both, hidden, matrix)

    mine = compute(matrix)
    without()
    near(mine, compute(matrix), compute(matrix.float()))


@needed
def test_draws_follow_the_distribution(without: Change) -> None:
    """Every token in proportion to its probability: one uniform number for each of a fine grid."""
    hidden, matrix, n = random(1, 32, dtype=torch.float32) / 3, random(300, 32, seed=1), 20000
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    token, logp = head.draw(hidden.expand(n, 32).contiguous(), matrix, SamplingParams(), grid)
    share = torch.bincount(token, minlength=300) / n
    p = torch.zeros(300).index_put_((token,), logp.exp())
    assert float((share - p).abs().max()) < 2 / n + 1e-6
    assert torch.equal(token, token.sort().values)
    greedy, best = head.draw(hidden, matrix, SamplingParams(greedy=True), grid[:1])
    assert greedy[0] == p.argmax()
    assert torch.isclose(best[0].exp(), p.max())
    without()
    other, theirs = head.draw(hidden.expand(n, 32).contiguous(), matrix, SamplingParams(), grid)
    assert (other == token).float().mean() > 0.99
    assert torch.allclose(theirs[:9], logp[:9], atol=1e-4)


@needed
def test_numbers_that_are_none_stay_visible() -> None:
    hidden, matrix = random(2, 32, dtype=torch.float32), random(300, 32, seed=1)
    hidden[1, 3] = torch.nan
    token, logp = head.draw(hidden, matrix, SamplingParams(), torch.full((2,), 0.5, dtype=torch.float64))
    assert torch.isfinite(logp[0])
    assert torch.isnan(logp[1])
    assert (token >= 0).all()
    assert (token < 300).all()


@needed
def test_packed_products_have_the_same_bits() -> None:
    matrix = random(96, 64)
    weights = tiny(precision="bf16", vocabulary="abcdefgh").backbone.native()
    assert weights is not None
    layers, _ = weights.packed()
    for rows in (1, 2, 5, 64, 130):
        x = random(rows, weights.config.width, seed=rows)
        assert torch.equal(forward.linear(x, layers[0].qkv), forward.linear(x, weights.layers[0].qkv))
    before = layers[0].qkv
    weights.refresh()
    assert (weights.packed()[0][0].qkv is before) == kernels.tiles(
        weights.head
    )  # those read them as they are
    assert matrix.is_contiguous()


@needed
@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_pages_are_shared_copied_and_given_back(length: int) -> None:
    """Two replies to one prompt go different ways without disturbing each other, and leave no page behind."""
    weights = tiny(precision="bf16", seed=4).backbone.native()
    assert weights is not None

    def decode(*replies: list[int]) -> list[Tensor]:
        engine = PagedEngine(weights)
        prompts, _ = engine.prefill([np.arange(length, dtype=np.int32) % 60])
        for _ in replies:
            engine.add_row(prompts[0], 1)
        engine.release(prompts)
        seen = []
        for fed in zip(*replies, strict=True):
            for row, token in zip(engine.rows, fed, strict=True):
                row.last = token
            seen.append(engine.step())
        for _ in replies:
            engine.remove_row(0)
        assert len(engine.free_pages) == len(engine.references)
        assert not any(engine.references)
        return seen

    a, b = [5 + i % 9 for i in range(20)], [30 + i % 7 for i in range(20)]
    both = decode(a, b)
    for mine, alone, other in zip(both, decode(a), decode(b), strict=True):
        assert torch.equal(mine[0], alone[0])
        assert torch.equal(mine[1], other[0])


@needed
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_what_goes_on_from_an_earlier_request_is_not_computed_again(family: str) -> None:
    """Three turns of several conversations: the same tokens and log-probabilities, to the last bit, as when every turn
    is computed from its beginning, and the cost of what is new, by the page."""
    window = 24 if family == "mistral" else None

    def talk(forget: bool) -> tuple[list[tuple[list[int], list[float]]], list[int]]:
        policy = tiny(precision="bf16", seed=4, family=family, sliding_window=window)
        said, cost, lengths = [], [], []

        async def work() -> None:
            sampler = sampler_for(policy, max_rows=3)
            tokens = [np.arange(n, dtype=np.int32) % 50 + i for i, n in enumerate((5, 16, 33, 70))]
            for turn in range(3):
                if forget:
                    policy.forget()
                before = policy.meter.prefilled
                lengths.append([len(t) for t in tokens])
                params = SamplingParams(max_tokens=9 + turn)
                replies = await asyncio.gather(
                    *(sampler.sample(t, params, 10 * turn + i) for i, t in enumerate(tokens))
                )
                cost.append(policy.meter.prefilled - before)
                said.extend((r.tokens.tolist(), r.logp.tolist()) for r in replies)
                new = np.array([40, 41, 42], np.int32)
                tokens = [np.concatenate([t, r.tokens, new]) for t, r in zip(tokens, replies, strict=True)]
            await sampler.close()

        asyncio.run(work())
        if forget:
            assert cost == [sum(row) for row in lengths]
        else:  # of the turn before, all but its last token and what does not fill a page is known
            ends = [[n - 3 - 1 for n in row] for row in lengths[1:]]
            assert cost[0] == sum(lengths[0])
            assert cost[1:] == [
                sum(n - e // 16 * 16 for n, e in zip(row, end, strict=True))
                for row, end in zip(lengths[1:], ends, strict=True)
            ]
        return said, cost

    assert talk(False)[0] == talk(True)[0]


@needed
def test_what_is_kept_is_bounded_and_ends_with_the_weights() -> None:
    policy = tiny(precision="bf16", seed=4)
    weights = policy.backbone.native()
    assert weights is not None
    token = PagedEngine(weights).bytes_per_token()
    prompts = [np.arange(50, dtype=np.int32) + i for i in range(5)]

    async def ask(sampler: NativeSampler, prompt: np.ndarray) -> int:
        before = policy.meter.prefilled
        await sampler.sample(prompt, SamplingParams(max_tokens=1), 0)
        return policy.meter.prefilled - before

    async def work() -> None:
        sampler = NativeSampler(policy, memory=4 * 7 * 16 * token)  # of which a quarter, seven pages, is kept
        engine = sampler.engine
        assert isinstance(engine, PagedEngine)
        for prompt in prompts:
            assert await ask(sampler, prompt) == 50
        assert len(engine.prefixes) == 7
        assert len(engine.references) - len(engine.free_pages) == 7
        assert await ask(sampler, prompts[4]) == 2
        assert await ask(sampler, prompts[2]) == 50 - 16  # one page is left of it: its beginning
        for change in (policy.publish, policy.forget):
            change()
            assert await ask(sampler, prompts[4]) == 50
            assert await ask(sampler, prompts[4]) == 2
        with policy.recording():
            assert await ask(sampler, prompts[4]) == 50
        await sampler.close()

    asyncio.run(work())


@needed
def test_the_number_of_threads_changes_no_bit() -> None:
    from test_policy import some_batch

    policy, batch, found = tiny(precision="bf16", seed=2), some_batch(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            out = policy.outputs(batch)
            out.logp.sum().backward()
            policy.grad_accumulate()
            found.append([out.logp.detach(), *(p.grad.clone() for _, p in policy.parameters())])
            for _, p in policy.parameters():
                p.grad = None
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


@needed
def test_a_sampler_without_kernels_says_the_same(without: Change) -> None:
    """Engines of both kinds, the same model and the same random numbers: the same replies, until rounding decides."""

    def replies(policy: Policy) -> list[list[int]]:
        async def work() -> list[list[int]]:
            sampler = NativeSampler(policy)
            jobs = [
                sampler.sample(np.array([10, 11, 12 + i], np.int32), SamplingParams(max_tokens=6), i)
                for i in range(24)
            ]
            out = await asyncio.gather(*jobs)
            await sampler.close()
            return [s.tokens.tolist() for s in out]

        return asyncio.run(work())

    policy = tiny(precision="bf16", seed=3)
    mine = replies(policy)
    without()
    theirs = replies(policy)
    assert sum(a == b for a, b in zip(mine, theirs, strict=True)) >= 16  # unrelated replies never agree


@pytest.mark.parametrize(
    ("setting", "words"), [("ETUDE_KERNELS", ""), ("CXX", "native kernels are not used")]
)
def test_nobody_needs_them(setting: str, words: str, tmp_path: Path) -> None:
    """Switched off, or with a compiler that fails, the same program runs and says so at most once."""
    code = "from etude.models import kernels; print(kernels.library(), kernels.library())"
    value = "off" if setting == "ETUDE_KERNELS" else "/bin/false"
    env = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), setting: value}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None None"
    assert done.stderr.count("native kernels are not used") == bool(words)


tiled = pytest.mark.skipif(
    not kernels.tiles(torch.empty(0, dtype=torch.bfloat16)), reason="no AMX tiles on this machine"
)


@tiled
@pytest.mark.parametrize(("outputs", "inputs"), [(960, 576), (50, 70), (31, 33), (576, 1536), (3200, 64)])
@pytest.mark.parametrize("biased", [False, True])
def test_a_row_of_a_product_depends_on_that_row_alone(outputs: int, inputs: int, biased: bool) -> None:
    """Whatever the number of rows and of threads; and it is the product."""
    x, matrix = random(700, inputs), random(outputs, inputs, seed=1)
    bias = random(outputs, seed=2) if biased else None
    whole = forward.linear(x, matrix, bias)
    true = x.double() @ matrix.double().t() + (0 if bias is None else bias.double())
    assert ((whole - true).abs() <= 0.004 * true.abs() + 1e-4 * inputs).all()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for n in (1, 2, 15, 16, 17, 33, 64, 300):
                assert torch.equal(forward.linear(x[100 : 100 + n], matrix, bias), whole[100 : 100 + n])
    finally:
        torch.set_num_threads(threads)


@tiled
def test_gradients_of_a_product() -> None:
    def compute(precision: torch.dtype) -> list[Tensor]:
        given = [random(37, 70), random(50, 70, seed=1), random(50, seed=2)]
        return pulled(forward.linear, *(x.to(precision) for x in given))

    mine = compute(torch.bfloat16)
    near(mine, mine, compute(torch.float32))


def test_float32_products_of_few_rows_add_as_those_of_many() -> None:
    x, matrix = random(700, 576, dtype=torch.float32), random(960, 576, seed=1, dtype=torch.float32)
    whole = forward.linear(x, matrix)
    for n in (1, 2, 7, 8, 15, 16, 60, 100):
        assert torch.equal(forward.linear(x[:n], matrix), whole[:n])
