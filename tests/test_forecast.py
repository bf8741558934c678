"""What a run is said to need, against what its tensors take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import worlds_of_letters as letters
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.train import forecast
from etude.train.loop import train
from etude.train.setup import start


def held(*tensors: torch.Tensor) -> int:
    """Bytes, those of the same memory counted once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_gradients_and_moments_are_what_they_take(precision: str, tied: bool, tmp_path: Path) -> None:
    tiny_directory(tmp_path / "model", letters.LETTERS, width=64, tie_word_embeddings=tied)
    plan = letters.plan(
        tmp_path, "grpo", 1, run__precision=precision, run__backbone="transformers", run__eval_problems=0
    )
    run = start(plan, tmp_path / "run", letters.words())
    found = forecast.memory(run)
    train(run)
    masters = [p for _, p in run.learner.policy.parameters()]
    module = list(run.learner.policy.backbone.module.parameters())  # type: ignore[attr-defined]
    assert held(*masters, *module) == pytest.approx(found.weights, rel=0.02)
    assert held(*(p.grad for p in masters if p.grad is not None)) == pytest.approx(found.gradients, rel=0.02)
    states = run.learner.optimiser().state.values()
    assert held(*(s[n] for s in states for n in ("exp_avg", "exp_avg_sq"))) == pytest.approx(
        found.moments, rel=0.02
    )
    assert found.others == 0
    run.close()


def test_activations_are_of_the_size_that_autograd_keeps(tmp_path: Path) -> None:
    place = tiny_directory(tmp_path / "m", width=128, layers=4)
    policy = Policy.load(str(place), "fp32", backbone="transformers")
    from test_packed import uneven

    batch, kept = uneven(), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in policy.backbone.module.parameters()}  # type: ignore[attr-defined]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.outputs(batch)
    bytes_kept = sum(size for where, size in kept.items() if where not in weights)
    assert bytes_kept / len(batch) == pytest.approx(forecast.activation_bytes(policy, False), rel=0.6)
    assert forecast.activation_bytes(policy, True) < forecast.activation_bytes(policy, False) / 2


def test_auxiliary_models_are_counted(tmp_path: Path) -> None:
    run = start(letters.plan(tmp_path, "prime", 1), tmp_path / "run", letters.words())
    found = forecast.memory(run)
    assert (
        found.others > found.weights + found.gradients + found.moments
    )  # one that is trained, and one that is read
    said = " ".join(forecast.sentences(run))
    assert "other models" in said
    assert "16 tasks x 8 attempts, at most 256 tokens" in said
    run.close()
