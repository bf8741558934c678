"""The optimiser's step: what it reports, how often and over what it steps, and what it does when something gives way."""

from dataclasses import replace
from math import cos, log, pi

import numpy as np
import pytest
import torch

from etude.batch import Batch, pack
from etude.errors import UserError
from etude.objective.terms import MEANS, Objective, Term, objective, per_episode
from etude.testing import toys
from etude.train import step as steps
from etude.train.step import Learner
from etude.types import Episode, Signal, Span
from etude.update import Update


def signal(
    number: int, advantages: list[float], weights: dict[str, list[float]] | None = None, **more
) -> Signal:
    """One token of a prompt, then sampled tokens 1, 2, ... of log-probability -1."""
    n = len(advantages)
    words = Span("assistant", np.arange(1, n + 1, dtype=np.int32), True, -np.ones(n, np.float32))
    episode = Episode(toys.task(number), (Span("user", np.zeros(1, np.int32)), words), **more)
    rows = {name: np.array([0.0, *row], np.float32) for name, row in (weights or {}).items()}
    return Signal(episode, np.array([0.0, *advantages], np.float32), rows)


def learner(update: Update | None = None, micro_tokens: int = 1 << 20) -> Learner:
    return Learner(toys.TablePolicy(), update or Update(), micro_tokens=micro_tokens)


def policy_gradient(unit: str = "episode") -> Objective:
    return objective(
        Term("policy", lambda out, batch: -batch.advantage * out.logp, MEANS["sum"], proportional=True),
        unit=unit,
    )


def flat(of: Learner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for _, p in of.policy.parameters()]).clone()


# ---- what is reported ------------------------------------------------------------------------------------


def test_readings_by_hand() -> None:
    """Ratios 1/2 and 4: KL by k3 = (1/2 - 1 - log 1/2 + 4 - 1 - log 4) / 2; the gap to the sampler (log 2 + log 4) / 2. The
    prompt and a token without log-probability do not count."""
    batch = pack([signal(0, [1.0, 1.0])])
    logp = torch.tensor([5.0, -1 - log(2), -1 + log(4)])
    found = steps._readings(logp, batch, first=True)
    means = {name: total / count for name, (total, count) in found.items()}
    assert means == pytest.approx({"kl_sampler": 1.25 - log(2) / 2, "gap": 1.5 * log(2)}, abs=1e-6)
    assert "gap" not in steps._readings(logp, batch, first=False)
    assert steps._readings(logp[:1], pack([signal(0, [])]), True) == {}


def test_loss_is_over_all_that_counts_and_metrics_over_what_is_active() -> None:
    """Two episodes of two tokens, one without advantage: its forward pass is left out, and still it counts."""

    def loss(out, batch):
        return -batch.advantage * torch.ones_like(out.logp), {"seen": torch.full_like(out.logp, 3.0)}

    whole = objective(Term("policy", loss, per_episode, proportional=True))
    signals = [signal(0, [2.0, 2.0]), signal(1, [0.0, 0.0])]
    for micro_tokens in (1, 1 << 20):
        of = learner(micro_tokens=micro_tokens)
        found = of.accumulate(
            replace(whole, terms=(replace(whole.terms[0], loss=_live(loss)),)), pack(signals)
        )
        assert found["loss/policy"] == pytest.approx([-2.0, 2])
        assert found["seen"] == pytest.approx([6.0, 2])


def _live(loss):
    """With a gradient of zero, so that there is something to go backward through."""

    def with_gradient(out, batch):
        value, metrics = loss(out, batch)
        return value + 0 * out.logp, metrics

    return with_gradient


def test_metrics_are_averaged_over_the_last_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    of = learner(Update(passes=2, minibatches=2))
    found = iter(
        [{"x": [100.0, 1.0]}, {"x": [100.0, 1.0]}, {"x": [1.0, 2.0]}, {"x": [6.0, 3.0], "y": [0.0, 0.0]}]
    )
    monkeypatch.setattr(of, "_step", lambda *given, **more: next(found))
    signals = [signal(i, [1.0]) for i in range(4)]
    signals[3] = signal(3, [0.0])
    means = of.learn(policy_gradient(), signals, 0, 0.0)
    assert means == {"x": 7 / 5, "signal_tokens": 3 / 4}


@pytest.mark.parametrize(
    ("changed", "gap"),
    [({}, True), ({"policy_version": 7}, False), ({"hidden": True}, False)],
)
def test_gap_is_told_of_fresh_data_alone(changed: dict, gap: bool) -> None:
    hidden = changed.pop("hidden", False)
    made = signal(0, [1.0, -1.0], **changed)
    spans = (replace(made.episode.spans[0], hidden=hidden), made.episode.spans[1])
    made = replace(made, episode=replace(made.episode, spans=spans))
    of = learner(Update(passes=1, minibatches=2))
    assert of._wrote(made.episode) == gap
    if not hidden:
        means = of.learn(policy_gradient(), [made, signal(1, [1.0], **changed)], 0, 0.0)
        assert ("gap" in means) == gap


# ---- steps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "number", "sizes"), [("episode", 2, [2, 2]), ("group", 2, [2, 3]), ("batch", 2, [5])]
)
def test_minibatches_share_out_the_units(unit: str, number: int, sizes: list[int]) -> None:
    """Groups of one episode each: every one is used once a pass, in an order that changes from pass to pass."""
    of = learner(Update(minibatches=number))
    total = sum(sizes)
    batch = pack([signal(i, [float(i + 1)]) for i in range(total)])
    orders = []
    for part in range(6):
        pieces = list(of._minibatches(batch, unit, 0, part))
        seen = [sorted(p.advantage[p.sampled].tolist()) for p in pieces]
        assert sorted(len(s) for s in seen) == sizes
        assert sorted(x for s in seen for x in s) == [i + 1.0 for i in range(total)]
        orders.append(seen)
    assert any(order != orders[0] for order in orders) == (unit != "batch")
    other = Learner(of.policy, of.update, "critic")
    assert unit == "batch" or any(
        [sorted(p.advantage[p.sampled].tolist()) for p in other._minibatches(batch, unit, 0, part)]
        != orders[part]
        for part in range(6)
    )


def test_groups_stay_whole() -> None:
    of = learner(Update(minibatches=2))
    batch = pack([signal(i // 3, [float(i)]) for i in range(6)])
    for piece in of._minibatches(batch, "group", 0, 0):
        assert len(piece.advantage[piece.sampled]) == 3


def test_a_step_for_every_minibatch_of_every_pass() -> None:
    of = learner(Update(passes=3, minibatches=2))
    of.learn(policy_gradient(), [signal(i, [1.0]) for i in range(4)], 0, 0.0)
    assert of.policy.version == 6
    assert not flat(of).any(), "the gradient is cleared after the step"


def test_first_step_of_adam_is_the_rate_towards_what_was_praised() -> None:
    """AdamW's first step is lr x rate x sign(gradient); heads have their own rate. Praise raises log pi."""
    of = Learner(toys.TablePolicy(0, {"value": 1}), Update(lr=1e-2, head_lr=1e-1, warmup=3, max_norm=0.0))
    head = objective(Term("value", lambda out, batch: out.heads["value"][:, 0], MEANS["sum"]), value=1)
    before = of.policy.state_dict()
    batch = pack([signal(0, [1.0])])
    praised = float(of.policy.score(batch).logp.sum())
    of.learn(policy_gradient() + head, [signal(0, [1.0])], 1, 0.5)
    moved = {n: (p - before[n]).abs().max().item() for n, p in of.policy.parameters()}
    assert moved["after"] == pytest.approx(1e-2 * 2 / 4, rel=1e-3)
    assert moved["heads.value"] == pytest.approx(1e-1 * 2 / 4, rel=1e-3)
    assert float(of.policy.score(batch).logp.sum()) > praised


def test_rate_by_hand() -> None:
    assert [Update(warmup=3).rate(i, 0.5) for i in range(5)] == [1 / 4, 2 / 4, 3 / 4, 1, 1]
    assert [Update(decay="linear").rate(9, p) for p in (0.0, 0.25, 1.0, 1.5)] == [1.0, 0.75, 0.0, 0.0]
    found = [Update(decay="cosine").rate(9, p) for p in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([1.0, 0.5 + 0.5 * cos(pi / 4), 0.5, 0.0])


def test_the_norm_is_bounded_and_reported() -> None:
    of = learner(Update(max_norm=0.5))
    kept = []
    of.optimiser().step = lambda: kept.append(flat(of).norm())  # type: ignore[method-assign]
    means = of.learn(policy_gradient(), [signal(0, [1.0, -1.0])], 0, 0.0)
    assert float(kept[0]) == pytest.approx(0.5, rel=1e-4)
    assert means["grad_norm"] > 0.5


def test_a_gradient_that_is_not_finite_is_skipped() -> None:
    of = learner()
    before = of.policy.state_dict()
    broken = objective(Term("policy", lambda out, batch: out.logp * float("nan")))
    assert of.learn(broken, [signal(0, [1.0])], 0, 0.0)["skipped_updates"] == 1.0
    assert of.policy.version == 0
    assert not flat(of).any()
    assert all(torch.equal(before[n], p) for n, p in of.policy.parameters())


# ---- what is left out, and memory -----------------------------------------------------------------------


def test_dead_weight_by_unit() -> None:
    signals = [signal(0, [1.0]), signal(0, [0.0, 0.0]), signal(1, [0.0])]
    batch = pack(signals)
    assert len(steps.without_dead_weight(batch, policy_gradient())) == 2
    assert len(steps.without_dead_weight(batch, policy_gradient("group"))) == 2 + 3
    assert len(steps.without_dead_weight(batch, policy_gradient("batch"))) == len(batch)
    assert steps.alive_share(batch, policy_gradient()) == 1 / 4
    plain = objective(Term("policy", lambda out, batch: out.logp))
    assert len(steps.without_dead_weight(batch, plain)) == len(batch)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_what_does_not_fit_is_cut_in_two(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient and the metrics are those of the whole; one episode that does not fit is said."""
    signals = [signal(i, [1.0, -0.5]) for i in range(5)]
    whole = learner()
    wanted = whole.accumulate(policy_gradient(), pack(signals))
    of = learner()
    outputs = of.policy.outputs
    asked = []

    def small(batch: Batch, needs: frozenset = frozenset(), inputs=None):
        asked.append(len(batch))
        if len(batch) > most:
            raise error
        return outputs(batch, needs, inputs)

    monkeypatch.setattr(of.policy, "outputs", small)
    most = 6
    found = of.accumulate(policy_gradient(), pack(signals))
    assert torch.allclose(flat(of), flat(whole))
    assert found.keys() == wanted.keys()
    for name, pair in wanted.items():
        assert found[name] == pytest.approx(pair)
    assert asked[:2] == [15, 6]
    most = 2
    with pytest.raises(UserError, match="one episode of 3 tokens does not fit into memory"):
        of.accumulate(policy_gradient(), pack(signals))
    monkeypatch.setattr(of.policy, "outputs", lambda *given: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        of.accumulate(policy_gradient(), pack(signals))


def test_a_rate_is_idle_below_half_the_spacing_of_float32() -> None:
    of = learner()
    size = of._size()
    for share, said in ((0.9, True), (1.1, False)):
        of.update = Update(lr=share * size * 2.0**-24)
        assert ("float32" in of.idle(None)) == said
