"""Sampling from the geometric mixture of two models."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from etude.errors import UserError
from etude.models.policy import Policy
from etude.models.tiny import tiny
from etude.sampling.engine import sampler_for
from etude.sampling.mixture import mixture
from etude.sampling.protocol import Sample
from etude.types import SamplingParams
from test_models_other import other
from test_sampler import PROMPTS, WARM, batch_of, crowd, repeated, run

SHARE = 0.3


def two(precision: str) -> tuple[Policy, Policy]:
    return tiny(seed=3, precision=precision), tiny(seed=4, precision=precision)


def mixed_logp(one: Policy, two: Policy, samples: list[Sample], params: SamplingParams) -> torch.Tensor:
    """log-probabilities of what was sampled, from the logits of the two models on whole sequences."""
    batch = batch_of(repeated(), samples, SamplingParams())
    on = batch.needed
    z = [p.score(batch, frozenset({"hidden"})).logits(on).float() for p in (one, two)]
    x = ((1 - SHARE) * z[0] + SHARE * z[1]) / params.temperature
    return torch.log_softmax(x, 1).gather(1, batch.tokens[on][:, None])[:, 0] - batch.behaviour[on]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_samples_the_mixture_and_says_how_likely_each_token_was(precision: str) -> None:
    one, beside = two(precision)
    samples = run(crowd(mixture(sampler_for(one, 5), sampler_for(beside, 5), SHARE), WARM))  # type: ignore[arg-type]
    assert mixed_logp(one, beside, samples, WARM).abs().max() < (2e-2 if precision == "bf16" else 1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_a_share_it_is_one_of_the_two(share: float) -> None:
    one, beside = two("fp32")
    mixed = run(crowd(mixture(sampler_for(one), sampler_for(beside), share), WARM))  # type: ignore[arg-type]
    alone = run(crowd(sampler_for(beside if share else one), WARM))  # type: ignore[arg-type]
    assert [s.tokens.tolist() for s in mixed] == [s.tokens.tolist() for s in alone]
    assert [s.tokens.tolist() for s in alone] != [
        s.tokens.tolist() for s in run(crowd(sampler_for(one if share else beside), WARM))
    ]  # type: ignore[arg-type]


def test_what_both_models_compute_is_counted() -> None:
    one, beside = two("fp32")
    run(crowd(mixture(sampler_for(one), sampler_for(beside), SHARE), WARM))  # type: ignore[arg-type]
    assert one.meter.generated == beside.meter.generated > 0
    assert beside.meter.prefilled == sum(map(len, PROMPTS))


def test_architectures_without_a_native_pass(tmp_path: Path) -> None:
    one, beside = (Policy.load(str(other(tmp_path / n, "gpt2")), "fp32") for n in "ab")
    with torch.no_grad():
        for _, parameter in beside.parameters():
            parameter.mul_(1.3)
    beside.publish()
    samples = run(crowd(mixture(sampler_for(one, 5), sampler_for(beside, 5), SHARE), WARM))  # type: ignore[arg-type]
    assert mixed_logp(one, beside, samples, WARM).abs().max() < 1e-4
    assert mixed_logp(one, one, samples, WARM).abs().max() > 1e-2


def test_servers_have_one_model() -> None:
    with pytest.raises(UserError, match="without engines"):
        mixture(object(), object(), SHARE)


def test_new_weights_are_sampled_from_at_once() -> None:
    """The mixture outlives a step: nothing that the old weights computed is used again."""
    one, beside = two("fp32")
    sampler = mixture(sampler_for(one), sampler_for(beside), SHARE)

    async def twice() -> list[Sample]:
        await sampler.sample(PROMPTS[0], WARM, 1)
        with torch.no_grad():
            for _, parameter in one.parameters():
                parameter.mul_(1.2)
        one.publish()
        return [await sampler.sample(PROMPTS[i // 3], WARM, 100 * (i // 3) + i % 3) for i in range(12)]

    samples = asyncio.run(asyncio.wait_for(twice(), 60))
    assert mixed_logp(one, beside, samples, WARM).abs().max() < 1e-4
