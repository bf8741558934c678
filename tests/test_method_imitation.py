"""Imitation: what single methods add to the laws that hold for all of them."""

import pytest
import torch

import toys
from etude.batch import pack
from lessons import same


def dft(lesson: toys.Lesson) -> torch.Tensor:
    """-mean_t sg[pi(y*_t)] log pi(y*_t): dynamic fine-tuning (arXiv 2508.05629)."""
    batch = pack(lesson.signals)
    logp = lesson.policy.outputs(batch).logp[batch.weight("imitation") != 0]
    parameters = [p for _, p in lesson.policy.parameters()]
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(-(logp.detach().exp() * logp).mean(), parameters)]
    )


def test_otr_is_a_multiple_of_dft_when_exact_and_at_temperature_one() -> None:
    lesson = toys.lesson(
        "otr", {"credit.draws": 0, "objective.miss_reward": -0.1, "objective.draw_temperature": 1.0}
    )
    assert same(toys.gradient(lesson), 1.1 * dft(lesson))


@pytest.mark.parametrize("settings", [{}, {"objective.miss_reward": 0.5, "objective.draw_temperature": 2.0}])
def test_otr_draws_estimate_the_exact_gradient(settings: dict) -> None:
    exact = toys.gradient(toys.lesson("otr", {"credit.draws": 0, **settings}))
    error = [
        float(
            (toys.gradient(toys.lesson("otr", {"credit.draws": k, **settings})) - exact).norm() / exact.norm()
        )
        for k in (100, 40_000)
    ]
    assert error[1] < 0.05
    assert error[1] < error[0] / 8, "the error falls like 1/sqrt(K)"
