"""Hooks on hidden states: gradients and sampling see them, on the native body and on transformers alike."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from etude.batch import Batch, pack
from etude.errors import UserError
from etude.models.hooks import Change, Hook, Perturb, Read, Scale, Steer, hooked
from etude.models.policy import Policy
from etude.models.tiny import tiny
from etude.sampling.engine import sampler_for
from etude.types import Episode, Message, SamplingParams, Signal, Span, Task
from test_models_other import other

WIDTH = 32
KINDS = ("native", "transformers", "lora", "padded")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Policy]:
    """The same Llama on both bodies and with adapters, and an architecture that only transformers has, padded and packed."""
    shape = {"layers": 2, "width": WIDTH, "heads": 4, "kv_heads": 2, "seed": 1}
    gpt2 = Policy.load(str(other(tmp_path_factory.mktemp("gpt2"), "gpt2")), precision="fp32")
    padded = Policy.load(str(other(tmp_path_factory.mktemp("padded"), "gpt2")), precision="fp32")
    padded.backbone.obstacle = "for the test"  # type: ignore[attr-defined]
    return {
        "native": tiny(**shape),  # type: ignore[arg-type]
        "transformers": tiny(**shape, backbone="transformers"),  # type: ignore[arg-type]
        "lora": tiny(**shape, backbone="transformers", lora_rank=2),  # type: ignore[arg-type]
        "kernels": kernels(),
        "gpt2": gpt2,
        "padded": padded,
    }


def kernels() -> Policy:
    """One that the native kernels compute, where the machine has them: heads of 16 channels, in bfloat16."""
    return tiny(layers=2, width=WIDTH, heads=2, kv_heads=1, seed=1, precision="bf16")


def batch_of(*replies: tuple[list[int], list[int]]) -> Batch:
    """Of (prompt, reply) pairs."""
    signals = []
    for i, (prompt, reply) in enumerate(replies):
        task = Task((Message("user", str(i)),), check=lambda text: None)  # type: ignore[arg-type, return-value]
        n = np.array(reply, np.int32)
        spans = (
            Span("user", np.array(prompt, np.int32)),
            Span("assistant", n, True, np.zeros(len(n), np.float32)),
        )
        signals.append(Signal(Episode(task, spans, index=i), np.ones(len(prompt) + len(reply), np.float32)))
    return pack(signals)


BATCH = batch_of(([10, 11, 12], [13, 14]), ([10, 11, 12], [15]), ([9, 8], [7, 6, 5]))


def ramp() -> torch.Tensor:
    return torch.linspace(-1, 1, WIDTH)


def logp(policy: Policy, *hooks: Hook) -> torch.Tensor:
    with hooked(policy, *hooks), torch.no_grad():
        return policy.outputs(BATCH).logp


@pytest.mark.parametrize("kind", [*KINDS, "gpt2"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_a_vector_of_noughts_changes_nothing_and_another_does(
    bodies: dict[str, Policy], kind: str, layer: int
) -> None:
    policy, plain = bodies[kind], logp(bodies[kind])
    assert torch.equal(logp(policy, Hook(layer, Steer(torch.zeros(WIDTH)))), plain)
    assert not torch.allclose(logp(policy, Hook(layer, Steer(ramp()))), plain, atol=1e-3)
    assert torch.equal(logp(policy), plain)  # the hook is gone


@pytest.mark.parametrize("place", ["hidden", "heads"])
@pytest.mark.parametrize("layer", [1, 2])
def test_both_bodies_agree(bodies: dict[str, Policy], place: str, layer: int) -> None:
    hooks = (Hook(layer, Scale(1 + ramp()), place), Hook(1, Steer(ramp(), 0.5)))
    ours, theirs = (logp(bodies[kind], *hooks) for kind in ("native", "transformers"))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, logp(bodies["native"], hooks[1]), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_is_what_transformers_calls_the_hidden_states(bodies: dict[str, Policy], kind: str) -> None:
    reads = [Read() for _ in range(3)]
    policy = bodies[kind]
    with hooked(policy, *(Hook(i, r) for i, r in enumerate(reads))), torch.no_grad():
        policy.outputs(BATCH)
    module = bodies["transformers" if kind in ("native", "lora") else kind].backbone.module  # type: ignore[attr-defined]
    states = [r.of_tokens(len(BATCH)) for r in reads]
    compared = 0
    for number in range(BATCH.sequences):
        inside = BATCH.sequence == number
        out = module(BATCH.tokens[inside][None], output_hidden_states=True).hidden_states
        for i, state in enumerate(states[:2]):  # the last one of transformers' is behind the norm
            rows = state[inside]
            first = (rows != 0).any(1)  # shared rows stand at the first token that they hold
            assert torch.allclose(rows[first], out[i][0][first].float(), atol=1e-4)
            compared += int(first.sum())
    assert compared >= 2 * 8  # of 12 tokens; shared ones once, and what predicts nothing not at all
    assert not torch.equal(states[2], states[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_vector_is_that_of_differences(bodies: dict[str, Policy], kind: str) -> None:
    policy, vector = bodies[kind], ramp().requires_grad_(True)
    with hooked(policy, Hook(1, Steer(vector))):
        policy.outputs(BATCH).logp.sum().backward()
    weights = [p for _, p in policy.parameters()]
    policy.grad_accumulate()
    assert any(w.grad is not None and bool(w.grad.abs().sum() > 0) for w in weights)
    for w in weights:
        w.grad = None
    assert vector.grad is not None
    way = torch.cos(torch.arange(WIDTH).float())
    up, down = (logp(policy, Hook(1, Steer(ramp() + h * way))).sum() for h in (1e-2, -1e-2))
    assert float(vector.grad @ way) == pytest.approx(float(up - down) / 2e-2, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_trained_under_the_hook(bodies: dict[str, Policy], kind: str) -> None:
    """The gradient of the weights is another one where a channel is turned off."""
    policy = bodies[kind]

    def gradient(*hooks: Hook) -> torch.Tensor:
        with hooked(policy, *hooks):
            policy.outputs(BATCH).logp.sum().backward()
        policy.grad_accumulate()
        found = torch.cat([p.grad.reshape(-1) for _, p in policy.parameters() if p.grad is not None])
        for _, p in policy.parameters():
            p.grad = None
        return found

    plain = gradient()
    assert torch.equal(plain, gradient())
    assert not torch.allclose(plain, gradient(Hook(2, Scale(1 + ramp()))), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perturbation_acts_on_the_chosen_tokens_and_stays_in_its_ball(
    bodies: dict[str, Policy], kind: str
) -> None:
    policy = bodies[kind]
    where = (BATCH.sequence == 2) & ~BATCH.sampled  # the prompt of the last sequence
    change = Perturb(where, WIDTH, radius=0.5)
    plain = logp(policy)
    with hooked(policy, Hook(1, change)):
        policy.outputs(BATCH).logp.sum().backward()
    policy.grad_discard()
    slope = change.delta.grad
    assert slope is not None
    touched = slope.abs().sum(1) > 0
    assert bool(touched.any())
    assert not bool((touched & ~where).any())
    with torch.no_grad():
        change.delta += 100 * slope
    change.project()
    assert float(change.delta.detach().norm(dim=1).max()) == pytest.approx(0.5, abs=1e-5)
    moved = (logp(policy, Hook(1, change)) - plain).abs() > 1e-5
    assert bool(moved[BATCH.sequence == 2].any())
    assert not bool(moved[BATCH.sequence != 2].any())


def test_tokens_that_share_a_row_share_the_perturbation_of_the_first(bodies: dict[str, Policy]) -> None:
    """The prompt of the first two sequences is computed once; changed there it changes both replies."""
    policy = bodies["native"]
    change = Perturb((BATCH.sequence == 0) & ~BATCH.sampled, WIDTH, radius=9.0)
    with torch.no_grad():
        change.delta += ramp()
    moved = (logp(policy, Hook(1, change)) - logp(policy)).abs() > 1e-5
    assert bool(moved[BATCH.sequence == 1].any())
    assert not bool(moved[BATCH.sequence == 2].any())


@pytest.mark.parametrize("kind", [*KINDS, "kernels", "gpt2"])
@pytest.mark.parametrize(
    ("place", "layer", "change"),
    [("hidden", 1, Steer(ramp(), 2.0)), ("hidden", 0, Scale(1 + ramp())), ("heads", 2, Scale(ramp()))],
    ids=["steer", "scale", "heads"],
)
def test_what_is_sampled_sees_the_hook(
    bodies: dict[str, Policy], kind: str, place: str, layer: int, change: Change
) -> None:
    """The sampler's log-probabilities are the trainer's under the hook, and not those without it: also for a prompt whose
    keys were kept from before, and for the next one after the hook is gone."""
    policy, hook = bodies[kind], Hook(layer, change, place)
    prompt = [10 + i % 5 for i in range(20)]

    async def said(*more: int) -> tuple[list[int], np.ndarray]:
        sample = await sampler.sample(np.array([*prompt, *more], np.int32), SamplingParams(max_tokens=6), 5)
        return [int(t) for t in sample.tokens], np.asarray(sample.logp)

    async def work() -> None:
        nonlocal sampler
        sampler = sampler_for(policy, max_rows=4)
        before = await said()
        with hooked(policy, hook):
            under = await said()
            scored = policy.score(batch_of((prompt, under[0]))).logp[len(prompt) :]
            assert np.abs(scored.numpy() - under[1]).max() < 1e-3
        plain = policy.score(batch_of((prompt, under[0]))).logp[len(prompt) :]
        assert np.abs(plain.numpy() - under[1]).max() > 1e-3
        after = await said()
        assert after[0] == before[0]
        assert np.array_equal(after[1], before[1])
        await sampler.close()

    sampler: object = None
    asyncio.run(work())


def test_a_reference_is_not_hooked(bodies: dict[str, Policy]) -> None:
    policy = bodies["lora"]
    reference = policy.clone(frozen=True)
    before = logp(reference)
    with hooked(policy, Hook(1, Steer(ramp()))), torch.no_grad():
        assert torch.equal(reference.outputs(BATCH).logp, before)
        assert not torch.allclose(policy.outputs(BATCH).logp, before, atol=1e-3)


def test_nothing_is_recorded_for_the_gradient_under_a_hook() -> None:
    policy = kernels()
    with hooked(policy, Hook(1, Steer(ramp()))), policy.recording():
        weights = policy.backbone.native()
        assert weights is not None
        assert weights.activations is None
        assert not weights.recording


def test_hooks_add_up_and_go_in_turn(bodies: dict[str, Policy]) -> None:
    policy = bodies["native"]
    both = logp(policy, Hook(1, Steer(ramp())), Hook(1, Steer(ramp())))
    with hooked(policy, Hook(1, Steer(ramp()))):
        assert torch.equal(logp(policy, Hook(1, Steer(ramp()))), both)
    assert torch.allclose(both, logp(policy, Hook(1, Steer(ramp(), 2.0))), atol=1e-5)


@pytest.mark.parametrize("kind", ["native", "transformers"])
@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (lambda: Hook(3, Read()), "'hidden' of this model has 0 to 2"),
        (lambda: Hook(0, Read(), "heads"), "'heads' of this model has 1 to 2"),
        (lambda: Hook(1, Read(), "head"), "it must be hidden or heads"),
        (lambda: Hook(1, Steer(torch.zeros(5))), "5 channels where the model has 32"),
    ],
)
def test_what_cannot_be_is_said(bodies: dict[str, Policy], kind: str, hook: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        logp(bodies[kind], hook())  # type: ignore[operator]
    assert bodies[kind].backbone.hooks is None


def test_nothing_is_sampled_under_a_perturbation(bodies: dict[str, Policy]) -> None:
    async def work() -> None:
        sampler = sampler_for(bodies["native"])
        await sampler.sample(np.array([3, 4], np.int32), SamplingParams(max_tokens=2), 0)

    change = Perturb(torch.ones(3, dtype=torch.bool), WIDTH, 1.0)
    with hooked(bodies["native"], Hook(1, change)), pytest.raises(Exception, match="nothing is sampled"):
        asyncio.run(work())


def test_a_model_whose_parts_cannot_be_told_says_so(tmp_path: Path) -> None:
    policy = Policy.load(str(other(tmp_path, "gpt2")), precision="fp32")
    policy.backbone.config.n_layer = 7  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="takes no hooks"):
        logp(policy, Hook(1, Read()))


@pytest.mark.parametrize("kind", ["native", "transformers"])
def test_a_latent_attack_lowers_its_loss_inside_the_ball(bodies: dict[str, Policy], kind: str) -> None:
    from dataclasses import replace

    from etude.methods.behaviour.targeted_lat import ATTACKED, AWAY, TOWARD, attack, inner_loss

    policy, row = bodies[kind], torch.zeros(len(BATCH))
    prompt = BATCH.position < 3
    good, bad = ((BATCH.episode == i) & ~prompt for i in (0, 1))
    pushed = (BATCH.episode < 2) & prompt  # the third episode is left alone
    batch = replace(
        BATCH,
        group=(BATCH.episode == 2).long(),
        weights={TOWARD: row + good, AWAY: row + bad},
        extras={ATTACKED: row + pushed},
    )
    plain = logp(policy)
    with torch.no_grad():
        before = float(inner_loss(policy.outputs(batch).logp, batch, 0.5, 0.5))
    hooks = attack(policy, batch, [0, 1], 0.3, 4, 0.1, 0.5, 0.5)
    with hooked(policy, *hooks), torch.no_grad():
        out = policy.outputs(batch).logp
    assert float(inner_loss(out, batch, 0.5, 0.5)) < before - 1e-3
    norms = torch.stack([hook.change.delta.norm(dim=1) for hook in hooks])  # type: ignore[attr-defined]
    assert float(norms.max()) == pytest.approx(0.3, abs=1e-5)
    assert (norms != 0).any(0).nonzero()[:, 0].tolist() == [0, 1, 2], "both answers stand behind one prompt"
    other = (BATCH.episode == 2) & batch.needed
    assert torch.allclose(out[other], plain[other], atol=1e-5)
    assert all(p.grad is None or not p.grad.any() for _, p in policy.parameters())
