"""The policy against transformers, and against itself cut otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import toys
from etude.batch import Batch, pack
from etude.models import forward
from etude.models.layout import layout
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.types import Episode, Message, SamplingParams, Signal, Span, Task

FAMILIES = {
    "llama": {"tie_word_embeddings": True},
    "llama-wide": {
        "head_dim": 32,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    },
    "llama-31": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 6},
}


def made(place: Path, case: str = "llama", **more: object) -> Path:
    """A tiny model with nothing left at a value that hides mistakes (norms of 1, biases of 0)."""
    from safetensors.torch import load_file, save_file

    path = tiny_directory(place / case, family=case.split("-")[0], **{**FAMILIES[case], **more})
    tensors = load_file(path / "model.safetensors")
    noise = torch.Generator().manual_seed(1)
    for name, value in tensors.items():
        if value.dim() == 1:
            value += 0.3 * torch.randn(value.shape, generator=noise)
        assert name
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("models"))


def batch_of(
    prompts: list[list[int]], replies: list[list[list[int]]], sampling: SamplingParams | None = None
) -> Batch:
    """Groups of replies to prompts, as token numbers."""
    signals = []
    for number, (prompt, group) in enumerate(zip(prompts, replies, strict=True)):
        task = Task((Message("user", str(number)),), check=lambda text: None)  # type: ignore[arg-type, return-value]
        for i, reply in enumerate(group):
            said = np.array(reply, np.int32)
            spans = (
                Span("user", np.array(prompt, np.int32)),
                Span("assistant", said, True, np.zeros(len(said))),
            )
            signals.append(
                Signal(Episode(task, spans, index=i), np.ones(len(prompt) + len(said), np.float32))
            )
    return pack(signals, sampling)


def some_batch(sampling: SamplingParams | None = None) -> Batch:
    """Two groups; in the first the replies begin alike, and one is the beginning of another."""
    first = [[30, 31, 32], [30, 31, 33, 34, 35, 36], [30, 31], [40]]
    second = [[20, 21, 22, 23, 24], [25, 26]]
    return batch_of([[10, 11, 12, 13, 14], [15, 16, 17, 10, 11, 12, 13, 14, 18]], [first, second], sampling)


def theirs(directory: Path, batch: Batch) -> tuple[torch.nn.Module, Tensor]:
    """transformers' log-probabilities, one sequence at a time, differentiable."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    rows = []
    for number in range(batch.sequences):
        ids = batch.tokens[batch.sequence == number]
        log_p = model(ids[None]).logits[0].log_softmax(-1)
        rows.append(torch.cat([torch.zeros(1), log_p[:-1].gather(1, ids[1:, None])[:, 0]]))
    return model, torch.cat(rows) * batch.needed


@pytest.mark.parametrize("case", sorted(FAMILIES))
def test_values_and_gradients_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    path, batch = made(tmp_path, case), some_batch()
    policy = Policy.load(str(path), "fp32", backbone="native")
    weights = torch.linspace(-1, 2, len(batch))
    model, expected = theirs(path, batch)
    (expected * weights).sum().backward()
    out = policy.outputs(batch)
    (out.logp * weights).sum().backward()
    policy.grad_accumulate()
    assert torch.allclose(out.logp, expected, atol=1e-4)
    grads = {name: p.grad for name, p in policy.parameters()}
    reference = {name: p.grad for name, p in model.named_parameters()}
    entries = policy.backbone.weights.entries  # type: ignore[attr-defined]
    assert {name for entry in entries for name, _ in entry.parts} == set(reference)
    assert any("bias" in name for name in reference) == (case == "qwen2")
    for entry in entries:
        stacked = torch.cat([reference[name] for name, _ in entry.parts])
        assert torch.allclose(grads[entry.name], stacked, rtol=1e-3, atol=1e-4), entry.name  # type: ignore[arg-type]


def test_a_shared_prompt_changes_neither_values_nor_gradients(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, results = some_batch(), []
    for share in (True, False):
        policy = Policy.load(str(place), "fp32")
        monkeypatch.setattr(
            "etude.models.backbone.layout", lambda t, s, unit, share=share: layout(t, s, unit, share)
        )
        out = policy.outputs(batch, frozenset({"entropy"}))
        (out.logp.pow(2).sum() + out.entropy.sum()).backward()  # type: ignore[union-attr]
        policy.grad_accumulate()
        results.append((out.logp, policy.meter.trained, [p.grad for _, p in policy.parameters()]))
    (a, few, ga), (b, all_, gb) = results
    assert few < all_ == len(batch) - batch.sequences  # nothing is predicted from a last token
    assert torch.equal(a, b)  # to the last bit
    assert all(torch.allclose(x, y, atol=2e-4) for x, y in zip(ga, gb, strict=True))


def test_layout_shares_as_much_as_one_level_can() -> None:
    def rows(*sequences: list[int]) -> int:
        tokens = torch.tensor([t for s in sequences for t in s])
        number = torch.tensor([i for i, s in enumerate(sequences) for _ in s])
        plan = layout(tokens, number)
        assert torch.equal(plan.tokens[plan.row_of], tokens)
        starts = torch.cat([torch.arange(len(s)) for s in sequences])
        assert torch.equal(plan.positions[plan.row_of], starts)
        return plan.real

    assert rows([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3]) == 5
    assert rows([1, 2, 3], [4, 5]) == 5
    assert rows([1, 2, 3], [1, 2, 3]) == 3
    # two pairs that share three and a token that all share: the pairs are worth more
    assert rows([9, 1, 1, 4], [9, 1, 1, 5], [9, 2, 2, 4], [9, 2, 2, 5]) == 10
    assert rows([7]) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sequence_alone_and_in_a_batch_agree_to_the_last_bit(place: Path, precision: str) -> None:
    policy, batch = Policy.load(str(place), precision), some_batch()
    whole = policy.score(batch).logp
    for number in range(batch.sequences):
        mine = batch.sequence == number
        assert toys.agree(policy.score(batch.take(mine)).logp, whole[mine], precision)
    assert toys.agree(policy.score(batch, tokens_per_piece=10).logp, whole, precision)
    assert policy.meter.scored > 0 == policy.meter.trained


def test_inputs_replace_what_is_read_but_not_what_is_predicted(place: Path) -> None:
    policy = Policy.load(str(place), "fp32")
    batch = batch_of([[10, 11, 12]], [[[30, 31, 32]]])
    other = batch.tokens.clone()
    other[4] = 50
    out, plain = policy.score(batch, inputs=other).logp, policy.score(batch).logp
    assert torch.equal(out[:5], plain[:5])
    swapped = replace(batch, tokens=torch.cat([other[:5], batch.tokens[5:]]))
    assert out[5] == policy.score(swapped).logp[5] != plain[5]
    two = some_batch()
    moved = (two.tokens + 1) % 60
    pieces = policy.score(two, tokens_per_piece=10, inputs=moved).logp
    assert torch.equal(pieces, policy.score(two, inputs=moved).logp)


def test_heads_and_hidden_states_belong_to_the_position_before(tmp_path: Path) -> None:
    policy = Policy.load(str(made(tmp_path)), "fp32", heads={"value": 2})
    batch = some_batch()
    assert not policy.score(batch).heads["value"].any()
    with torch.no_grad():
        for name, parameter in policy.parameters():
            if name.startswith("heads."):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    policy.publish()
    out = policy.outputs(batch, frozenset({"hidden"}))
    state = out.hidden
    assert state is not None
    leaves = policy.backbone.weights.leaves  # type: ignore[attr-defined]
    expected = state @ leaves["heads.value.weight"].t() + leaves["heads.value.bias"]
    assert torch.allclose(out.heads["value"][batch.needed], expected[batch.needed], atol=1e-5)
    log_p = out.logits(batch.needed).log_softmax(-1).gather(1, batch.tokens[batch.needed][:, None])[:, 0]
    assert torch.allclose(log_p, out.logp[batch.needed], atol=1e-4)
    assert not out.heads["value"][~batch.needed].any()
    out.heads["value"].sum().backward()
    policy.grad_accumulate()
    grads = dict(policy.parameters())
    assert grads["heads.value.bias"].grad.tolist() == pytest.approx([float(batch.needed.sum())] * 2)  # type: ignore[union-attr]
    saved = policy.save(tmp_path / "with-heads")
    again = Policy.load(str(saved), "fp32", heads={"value": 2})
    assert torch.equal(again.score(batch).heads["value"], policy.score(batch).heads["value"])


@pytest.mark.parametrize("backbone", ["native", "transformers"])
def test_gradients_accumulate_in_float32_and_publish_moves_the_working_copy(
    place: Path, backbone: str
) -> None:
    policy, batch = Policy.load(str(place), "bf16", backbone=backbone), some_batch()
    before = policy.score(batch).logp
    for _ in range(2):
        policy.outputs(batch).logp.sum().backward()
        policy.grad_accumulate()
    once = Policy.load(str(place), "bf16", backbone=backbone)
    once.outputs(batch).logp.sum().backward()
    once.grad_accumulate()
    for (_, twice), (_, single) in zip(policy.parameters(), once.parameters(), strict=True):
        assert twice.grad is not None
        assert twice.grad.dtype == torch.float32
        assert torch.allclose(twice.grad, 2 * single.grad)  # type: ignore[operator]
    torch.optim.SGD([p for _, p in policy.parameters()], lr=0.05).step()
    assert torch.equal(policy.score(batch).logp, before)  # nothing is seen before publication
    assert policy.publish() == policy.version == 1
    assert policy.score(batch).logp[batch.needed].mean() < before[batch.needed].mean() - 0.1


def test_state_is_exact_and_clones_stand_apart(place: Path) -> None:
    policy, batch = Policy.load(str(place), "bf16"), some_batch()
    reference = policy.clone()
    assert reference.parameters() == []
    before = policy.score(batch).logp
    with torch.no_grad():
        for _, p in policy.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)) * 1e-2)
    policy.publish()
    state = {k: v.clone() for k, v in policy.state_dict()["weights"].items()}
    other = Policy.load(str(place), "bf16")
    other.load_state_dict({**policy.state_dict(), "weights": state})
    assert other.version == 1
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(policy.parameters(), other.parameters(), strict=True)
    )
    assert torch.equal(other.score(batch).logp, policy.score(batch).logp)
    assert torch.equal(reference.score(batch).logp, before)
    assert not torch.equal(policy.score(batch).logp, before)
    twin = policy.clone(frozen=False)
    assert torch.equal(twin.score(batch).logp, policy.score(batch).logp)
    assert len(twin.parameters()) == len(policy.parameters())


def test_a_failed_backward_pass_can_be_repeated(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = Policy.load(str(place), "fp32"), some_batch()
    policy.outputs(batch).logp.sum().backward()
    policy.grad_accumulate()
    expected = [p.grad.clone() for _, p in policy.parameters() if p.grad is not None]
    whole, calls = forward.GatedLinear.backward, []

    def fails(ctx: object, grad: Tensor) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("simulated")
        return whole(ctx, grad)

    monkeypatch.setattr(forward.GatedLinear, "backward", staticmethod(fails))
    for _, p in policy.parameters():
        p.grad = None
    with pytest.raises(torch.OutOfMemoryError):
        policy.outputs(batch).logp.sum().backward()
    policy.grad_discard()
    for piece in batch.split(20):
        policy.outputs(piece).logp.sum().backward()
        policy.grad_accumulate()
    assert len(calls) > 3
    for (_, p), want in zip(policy.parameters(), expected, strict=True):
        assert p.grad is not None
        assert torch.allclose(p.grad, want, atol=2e-4)


def test_bf16_stays_near_fp32(place: Path) -> None:
    batch = some_batch()
    exact = Policy.load(str(place), "fp32").score(batch).logp[batch.needed]
    rough = Policy.load(str(place), "bf16").score(batch).logp[batch.needed]
    assert 0 < (exact - rough).abs().max() < 0.1


def test_lora_trains_and_merges(place: Path, tmp_path: Path) -> None:
    policy, batch = Policy.load(str(place), "fp32", lora_rank=2), some_batch()
    plain = Policy.load(str(place), "fp32")
    assert torch.allclose(policy.score(batch).logp, plain.score(batch).logp, atol=1e-5)
    assert sum(p.numel() for _, p in policy.parameters()) < policy.meter.size / 4
    optimiser = torch.optim.Adam([p for _, p in policy.parameters()], lr=1e-2)
    for _ in range(4):
        (-policy.outputs(batch).logp.sum()).backward()
        policy.grad_accumulate()
        optimiser.step()
        optimiser.zero_grad()
        policy.publish()
    assert policy.score(batch).logp.sum() > plain.score(batch).logp.sum() + 10
    merged = Policy.load(str(policy.save(tmp_path / "merged")), "fp32")
    assert torch.allclose(policy.score(batch).logp, merged.score(batch).logp, atol=1e-4)
    again = Policy.load(str(place), "fp32", lora_rank=2)
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.score(batch).logp, policy.score(batch).logp)


def test_the_other_backbone_says_the_same(place: Path) -> None:
    batch, needs = some_batch(SamplingParams(temperature=0.7, top_k=20)), frozenset({"entropy", "hidden"})
    results = []
    for backbone in ("native", "transformers"):
        policy = Policy.load(str(place), "fp32", backbone=backbone, heads={"value": 1})
        out = policy.outputs(batch, needs)
        assert out.entropy is not None
        (out.logp.sum() + out.entropy.pow(2).sum() + out.heads["value"].sum()).backward()
        policy.grad_accumulate()
        grads = dict(policy.parameters())
        names = "layers.1.down", "model.layers.1.mlp.down_proj.weight"
        grad = next(grads[n].grad for n in names if n in grads)
        results.append((out.logp, out.entropy, out.hidden, grad, grads["heads.value.weight"].grad))
    for ours, theirs_ in zip(*results, strict=True):
        assert torch.allclose(ours, theirs_, atol=1e-4)  # type: ignore[arg-type]
