"""The output head and the distribution that is sampled from: values, gradients, draws."""

from __future__ import annotations

import pytest
import torch

from etude.models import head
from etude.models.distribution import draw, log_softmax, normaliser, pick
from etude.types import SamplingParams


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(temperature=0.6),
        SamplingParams(temperature=1.3, top_k=5),
        SamplingParams(top_p=0.5),
        SamplingParams(top_k=9, top_p=0.7),
        SamplingParams(greedy=True, temperature=0.1, top_k=1),
    ],
)
def test_head_is_log_softmax_with_its_gradient(sampling: SamplingParams) -> None:
    """Against plain autograd over the definition, entropy included, cut into several chunks."""
    made_ = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 8, generator=made_, requires_grad=True)
    matrix = torch.randn(33, 8, generator=made_, requires_grad=True)
    chosen = torch.randint(33, (7,), generator=made_)
    weight, other = torch.randn(7, generator=made_), torch.randn(7, generator=made_)
    x = hidden @ matrix.t()
    kept = log_softmax(x.detach(), sampling, chosen) > -torch.inf
    log_p = (x if sampling.greedy else x / sampling.temperature).masked_fill(~kept, -torch.inf).log_softmax(1)
    p = log_p.exp()
    entropy = -(p * log_p.masked_fill(~kept, 0)).sum(1)
    expected = log_p.gather(1, chosen[:, None])[:, 0]
    wanted = torch.autograd.grad((expected * weight + entropy * other).sum(), (hidden, matrix))
    old = head.CHUNK, head.KEPT
    head.CHUNK, head.KEPT = 2, 3 * 33 * 4  # three rows of logits are kept, the others computed again
    try:
        logp, spread = head.log_probabilities(hidden, matrix, chosen, sampling, True)
        got = torch.autograd.grad((logp * weight + spread * other).sum(), (hidden, matrix))
        direct, _ = head.chosen_log_probabilities(x, chosen, sampling, False)
    finally:
        head.CHUNK, head.KEPT = old
    assert torch.allclose(logp, expected, atol=1e-5)
    assert torch.allclose(direct, expected, atol=1e-5)
    assert torch.allclose(spread, entropy, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("size", [33, 5120])
def test_the_largest_logits_are_exact(size: int) -> None:
    """In bf16 the 16 largest of a row are float32 dot products; the others are rounded ones."""
    noise = torch.Generator().manual_seed(6)
    hidden = 4 * torch.randn(9, 64, generator=noise)
    matrix = torch.randn(size, 64, generator=noise).to(torch.bfloat16)
    got, true = head.logits(hidden, matrix), hidden @ matrix.float().t()
    top = true.topk(10, dim=1).indices  # further down, rounding decides which are among the 16
    assert torch.allclose(got.gather(1, top), true.gather(1, top), rtol=1e-5)
    repaired = (got - true).abs() < 1e-4 * true.abs()
    assert torch.equal(head.largest(true).sort(dim=1).values, true.topk(16, dim=1).indices.sort(dim=1).values)
    assert 15 <= repaired.sum(dim=1).min() < size
    assert not torch.allclose(got, true, rtol=1e-5)
    assert torch.allclose(got, true, atol=0.5)


def test_what_top_k_and_top_p_keep() -> None:
    logits = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]]).log()

    def kept(chosen: int | None = None, **settings: float) -> list[float]:
        given = None if chosen is None else torch.tensor([chosen])
        p = log_softmax(logits, SamplingParams(**settings), given).exp()[0]  # type: ignore[arg-type]
        return [round(float(x), 3) for x in p]

    assert kept(top_k=2) == [0.714, 0.286, 0, 0, 0]
    assert kept(top_p=0.6) == [0.714, 0.286, 0, 0, 0]  # the token that crosses 0.6 stays
    assert kept(top_p=0.01) == [1, 0, 0, 0, 0]
    assert kept(top_k=2, chosen=4) == [0.667, 0.267, 0, 0, 0.067]
    assert kept(top_k=3, top_p=0.7) == [0.714, 0.286, 0, 0, 0]  # of what top k left
    assert kept(temperature=0.5)[0] == pytest.approx(0.25 / 0.325, abs=1e-3)


@pytest.mark.parametrize("size", [5, 700])
def test_draws_follow_the_distribution(size: int) -> None:
    """Chi-square of 40,000 draws, with and without cuts; and evenly spaced uniforms count out the CDF."""
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(3)) * 1.5
    for sampling in (SamplingParams(temperature=1.2), SamplingParams(top_k=4, top_p=0.95)):
        n = 40_000
        uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        tokens, logp = [], []
        for part in uniform.split(4_000):
            t, lp = draw(logits.expand(len(part), -1), sampling, part)
            tokens.append(t), logp.append(lp)
        p = log_softmax(logits, sampling)[0].exp()
        count = torch.bincount(torch.cat(tokens), minlength=size)
        assert (count - n * p).abs().max() < 2.5
        assert torch.allclose(torch.cat(logp), p.log()[torch.cat(tokens)], atol=1e-5)
    noise = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    tokens_, _ = draw(logits.expand(20_000, -1), SamplingParams(), noise)
    p = logits[0].softmax(0)
    usual = p * 20_000 > 5
    count = torch.bincount(tokens_, minlength=size)
    chi = float(((count - 20_000 * p)[usual] ** 2 / (20_000 * p[usual])).sum())
    freedom = int(usual.sum())
    assert chi < freedom + 5 * (2 * freedom) ** 0.5
    _, mass, sums = normaliser(logits)
    last = pick(mass, sums, torch.tensor([1.0], dtype=torch.float64))  # what rounding can make of 1 - 2^-53
    assert int(last) == size - 1
