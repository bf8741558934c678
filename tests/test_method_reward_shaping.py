"""Several rewards: their weights, against the papers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from etude import seeds
from etude.assembly import build
from etude.credit.group import constant, standardised
from etude.methods import find
from etude.methods.reward_shaping.dynamic_rewards import Influence, hypervolume
from formulas import prepared


def test_dynamic_rewards_move_with_their_share_of_the_gradient() -> None:
    lesson, groups = prepared("dynamic_rewards", {"credit.weight_rate": 0.0})
    credit, where = lesson.stages["credit"], lesson.context
    np.testing.assert_allclose(np.exp(credit.log_w), 1 / 3)
    before = where.policy.state_dict()

    def alone(k: int) -> torch.Tensor:
        names = ("accuracy", "conciseness", "format")
        rewards = [np.array([e.scores[names[k]] for e in g.episodes]) for g in groups]
        signals = [
            constant(e, float(a))
            for g, r in zip(groups, rewards, strict=True)
            for e, a in zip(g.episodes, standardised(r), strict=True)
        ]
        return toys.gradient(replace(lesson, signals=signals))

    g = torch.stack([alone(k) for k in range(3)])
    influence = (g @ g.sum(0)).numpy()
    credit.rate = 40.0
    credit(groups, where)
    wanted = np.exp(40.0 * influence) / np.exp(40.0 * influence).sum()
    np.testing.assert_allclose(np.exp(credit.log_w), wanted, rtol=1e-5)
    assert wanted.max() > 0.4, "something moved"
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), where.policy.state_dict().values(), strict=True)
    )
    assert all(p.grad is None or not p.grad.any() for _, p in where.policy.parameters())
    again = Influence()
    again.load_state_dict(credit.state_dict())
    np.testing.assert_array_equal(again.log_w, credit.log_w)


def test_hypervolume_rewards_pay_what_is_new() -> None:
    _, stages = build(find("hypervolume_rewards"))
    front = stages["credit"]
    assert front.extend([0.2, 0.2, 0.2]) == 0, "the first point is the origin"
    assert front.extend([0.7, 0.4, 0.3]) == pytest.approx(0.5 * 0.2 * 0.1)
    assert front.extend([0.6, 0.3, 0.25]) == 0, "nothing beyond the front"
    assert front.extend([0.4, 0.7, 0.3]) == pytest.approx(0.2 * 0.3 * 0.1)
    assert len(front.front) == 3
    rng = seeds.generator("points")
    points, spots = rng.random((6, 3)), rng.random((200_000, 3))
    inside = (spots[:, None] < points[None]).all(2).any(1).mean()
    assert hypervolume(points.tolist(), [0.0] * 3) == pytest.approx(inside, abs=5e-3)
