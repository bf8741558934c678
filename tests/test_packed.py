"""Packed rows against sequences alone: values, gradients, memory, and what cannot be packed."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from etude.batch import Batch
from etude.models import packed
from etude.models.policy import Policy
from etude.models.projection import Tail
from etude.types import SamplingParams
from test_models_other import WIDE, other
from test_policy import batch_of, made

CASES = ("llama", "qwen3", "mistral", "gpt2", "gemma2", "gemma3", "phi3", "Cohere", "Granite")
NATIVE = ("llama", "qwen3", "mistral")
MORE = {"Cohere": {**WIDE, "pad_token_id": 0}, "Granite": {**WIDE, "logits_scaling": 4.0}}
NEEDS = frozenset({"entropy", "hidden"})


def place_of(tmp_path: Path, name: str) -> Path:
    return made(tmp_path, name) if name in NATIVE else other(tmp_path / "m", name, **MORE.get(name, {}))


def loaded(place: Path, precision: str = "fp32", **more: object) -> Policy:
    return Policy.load(str(place), precision, backbone="transformers", **more)  # type: ignore[arg-type]


def uneven(sampling: SamplingParams | None = None) -> Batch:
    """Sequences of 3 to 31 tokens, of which some fall into one rectangle."""
    prompts = [[10, 11, 12], [15, 16, 17, 10, 11, 12, 13, 14, 18], [9]]
    replies = [[[30] * 3, [31, 32]], [[20, 21, 22] * 7 + [5], [23]], [[7, 8], [8, 7, 6, 5]]]
    return batch_of(prompts, replies, sampling)


def one_by_one(policy: Policy, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and value-head outputs as plain transformers gives them, every sequence alone and
    all logits whole."""
    module, params = policy.backbone.module, batch.sampling  # type: ignore[attr-defined]
    logp, entropy, value = (torch.zeros(len(batch)) for _ in range(3))
    heads = policy.backbone.heads  # type: ignore[attr-defined]
    for number in range(batch.sequences):
        inside = (batch.sequence == number).nonzero()[:, 0]
        ids = batch.tokens[inside]
        out = module(ids[None], output_hidden_states=True, use_cache=False)
        scores = (out.logits[0, :-1].float() / params.temperature).log_softmax(-1)
        logp = logp.index_put((inside[1:],), scores.gather(1, ids[1:, None])[:, 0])
        entropy = entropy.index_put((inside[1:],), -(scores.exp() * scores).sum(-1))
        found = out.hidden_states[-1][0, :-1].float() @ heads["value.weight"].t() + heads["value.bias"]
        value = value.index_put((inside[1:],), found[:, 0])
    return logp * batch.needed, entropy * batch.needed, value * batch.needed


def gradients(policy: Policy, *outputs: Tensor) -> dict[str, Tensor]:
    """Of some function of all outputs that weighs every token differently."""
    ramp = torch.linspace(-1, 2, len(outputs[0])).to(outputs[0].device)
    sum((x * ramp.roll(i)).sum() + 0.1 * x.pow(2).sum() for i, x in enumerate(outputs)).backward()  # type: ignore[union-attr]
    policy.grad_accumulate()
    return {n: p.grad.clone() for n, p in policy.parameters() if p.grad is not None}


def relative(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """|a - b| / |b| over all parameters together."""
    assert a.keys() == b.keys()
    whole = sum(float((a[n] - b[n]).pow(2).sum()) for n in a) ** 0.5
    return whole / sum(float(x.pow(2).sum()) for x in b.values()) ** 0.5


def stirred(policy: Policy) -> Policy:
    """With adapters and heads that are no longer zero."""
    with torch.no_grad():
        for n, p in policy.parameters():
            if "lora_" in n or n.startswith("heads."):
                noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(len(n)))
                p.add_(0.1 * noise.to(p.device))
    policy.publish()
    return policy


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_packed_values_and_gradients_are_those_of_sequences_alone(
    name: str, lora: int, tmp_path: Path
) -> None:
    policy = stirred(loaded(place_of(tmp_path, name), lora_rank=lora, heads={"value": 1}))
    assert "packed" in policy.backbone.engine
    batch = uneven(SamplingParams(temperature=0.7))
    expected = one_by_one(policy, batch)
    wanted = gradients(policy, *expected)
    for _, p in policy.parameters():
        p.grad = None
    out = policy.outputs(batch, NEEDS)
    got = out.logp, out.entropy, out.heads["value"][:, 0]
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5), float((a - b).abs().max())  # type: ignore[arg-type]
    assert relative(gradients(policy, *got), wanted) < 1e-5  # type: ignore[arg-type]


def test_a_cut_of_the_batch_changes_nothing(tmp_path: Path) -> None:
    policy = loaded(place_of(tmp_path, "qwen3"))
    batch = uneven()
    whole = policy.outputs(batch).logp
    parts = torch.cat([policy.outputs(piece).logp for piece in batch.split(20)])
    assert torch.allclose(whole, parts, atol=1e-6)
    assert len(policy.outputs(batch.take(batch.tokens < 0)).logp) == 0


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_recomputed_activations_give_the_same_gradients(name: str, tmp_path: Path) -> None:
    place, found, kept = place_of(tmp_path, name), [], []
    for recompute in (False, True):
        policy = loaded(place, recompute=recompute)
        size = 0

        def count(x: Tensor) -> Tensor:
            nonlocal size
            size += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            out = policy.outputs(uneven())
        found.append(gradients(policy, out.logp))
        kept.append(size)
    assert relative(found[1], found[0]) < 1e-6
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_logits_of_all_tokens_never_stand_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr("etude.models.projection.ROWS", 16)
    monkeypatch.setattr("etude.models.head.CHUNK", 16)
    monkeypatch.setattr("etude.models.head.KEPT", 0)
    policy = loaded(place_of(tmp_path, name))
    batch, size = uneven(), policy.config["vocab_size"]
    rows: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == size:
                rows.append(len(out))
            return out

    embedded = policy.backbone.module.get_input_embeddings().weight  # type: ignore[attr-defined]
    with Watch():
        out = policy.outputs(batch)
        out.logp.sum().backward()
    assert int(batch.needed.sum()) > 32
    assert max(n for n in rows if n not in embedded.shape) == 16  # the matrix itself, as it is and transposed


def test_a_reference_beside_adapters_holds_no_second_copy(tmp_path: Path) -> None:
    policy = stirred(loaded(place_of(tmp_path, "llama"), "bf16", lora_rank=2))
    batch = uneven()
    before = policy.score(batch).logp
    reference = policy.clone(frozen=True)
    assert reference.backbone.module is policy.backbone.module  # type: ignore[attr-defined]
    out = policy.outputs(batch)  # its backward pass is still to come when the reference is asked
    alone = copy.deepcopy(policy.backbone.module)  # type: ignore[attr-defined]
    assert torch.equal(reference.score(batch).logp, before)
    got = gradients(policy, out.logp)
    for _, p in policy.parameters():
        p.grad = None
    assert relative(gradients(policy, policy.outputs(batch).logp), got) == 0
    with torch.no_grad():
        for _, p in policy.parameters():
            p.add_(0.1)
    policy.publish()
    moved = policy.score(batch).logp
    assert not torch.allclose(moved, before, atol=1e-3)
    assert torch.equal(reference.score(batch).logp, before)
    assert torch.equal(policy.score(batch).logp, moved)
    twin = reference.clone(frozen=True)
    assert torch.equal(twin.score(batch).logp, before)
    saved = Policy.load(str(reference.save(tmp_path / "saved")), "bf16", backbone="transformers")
    assert (saved.score(batch).logp - before).abs().max() < 0.1
    assert alone is not policy.backbone.module  # type: ignore[attr-defined]


def test_what_cannot_be_packed_is_padded_and_says_so(tmp_path: Path) -> None:
    place = other(tmp_path / "m", "Bloom", vocab_size=128, hidden_size=32, n_layer=2, n_head=4)
    policy = stirred(loaded(place, heads={"value": 1}))
    assert policy.backbone.engine == "transformers, sequences padded (its attention cannot be replaced)"
    batch = uneven()
    expected = one_by_one(policy, batch)
    out = policy.outputs(batch, NEEDS)
    for a, b in zip((out.logp, out.entropy, out.heads["value"][:, 0]), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)  # type: ignore[arg-type]


def test_a_leak_between_sequences_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture that ignores where sequences begin would train on nonsense."""
    real = packed.packing

    def careless(lengths, *rest):  # type: ignore[no-untyped-def]
        return real([sum(lengths)], *rest)

    place = place_of(tmp_path, "llama")
    monkeypatch.setattr("etude.models.packed.packing", careless)
    assert "padded (packed sequences do not" in loaded(place).backbone.engine
    monkeypatch.setattr("etude.models.packed.packing", real)
    monkeypatch.setattr("etude.models.projection.tail_of", lambda config: Tail(2.0))
    assert "padded (packed sequences do not" in loaded(place).backbone.engine


def test_a_rectangle_wastes_little() -> None:
    lengths = [100, 3, 90, 95, 4, 1000, 0, 5]
    where = packed.packing(lengths, torch.device("cpu"))
    area = sum(r.size[0] * r.size[1] ** 2 for r in where.rectangles)
    assert area <= packed.WASTE * sum(n * n for n in lengths)
    assert len(where.rectangles) < 6
    tokens = torch.arange(sum(lengths))
    laid = torch.cat([tokens[r.rows][r.real] for r in where.rectangles])
    assert torch.equal(laid[where.back], tokens)
    assert replace(where, flash=True).bounds.tolist() == [0, 100, 103, 193, 288, 292, 1292, 1292, 1297]
