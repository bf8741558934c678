"""Models as they are published: architectures without a native pass, older weight files, adapters, broken weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from etude.models.policy import Policy
from etude.models.save import UNVERIFIED
from etude.models.tiny import tiny_directory
from test_policy import some_batch

SIZES = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gemma2": ("Gemma2", {**WIDE, "head_dim": 8}),
    "gemma3": ("Gemma3Text", {**WIDE, "head_dim": 8}),
    "phi3": ("Phi3", {**WIDE, "pad_token_id": 0}),
    "mixtral": ("Mixtral", {**WIDE, "num_local_experts": 4}),
}


def other(place: Path, name: str, **more: Any) -> Path:
    """A random model of another architecture, with the tokenizer of a tiny one."""
    import transformers

    kind, settings = OTHERS.get(name, (name, {}))
    tiny_directory(place, "abcdefghijklmnop")
    (place / "model.safetensors").unlink()
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        **{**settings, "bos_token_id": 1, "eos_token_id": 2, **more}
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    model.save_pretrained(place)
    return place


def trained(policy: Policy) -> Policy:
    optimiser = torch.optim.SGD([p for _, p in policy.parameters()], lr=1e-2)
    for _ in range(2):
        (-policy.outputs(some_batch()).logp.mean()).backward()
        policy.grad_accumulate()
        optimiser.step()
        optimiser.zero_grad()
        policy.publish()
    return policy


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("name", OTHERS)
def test_every_architecture_is_saved_and_verified(
    name: str, precision: str, lora: int, tmp_path: Path
) -> None:
    policy = trained(Policy.load(str(other(tmp_path / "m", name)), precision, lora_rank=lora))
    where = policy.save(tmp_path / "out")
    assert not (where / UNVERIFIED).exists()
    again = Policy.load(str(where), precision)
    gap = (again.score(some_batch()).logp - policy.score(some_batch()).logp).abs().max()
    assert gap < (0.1 if precision == "bf16" else 1e-4)


def test_experts_are_saved_by_their_published_names(tmp_path: Path) -> None:
    from safetensors import safe_open

    names = []
    for place in (
        other(tmp_path / "m", "mixtral"),
        Policy.load(str(tmp_path / "m"), lora_rank=2).save(tmp_path / "out"),
    ):
        with safe_open(place / "model.safetensors", framework="pt") as file:
            names.append(sorted(file.keys()))
    assert names[0] == names[1]


def test_trained_weights_are_kept_when_they_cannot_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = trained(Policy.load(str(other(tmp_path / "m", "gpt2"))))

    def fails(*_: object) -> str:
        raise RuntimeError("no memory\nleft")

    monkeypatch.setattr("etude.models.save.compare", fails)
    where = policy.save(tmp_path / "out")
    assert "no memory" in (where / UNVERIFIED).read_text(encoding="utf-8")
    assert "not verified" in capsys.readouterr().err
    monkeypatch.undo()
    assert torch.equal(Policy.load(str(where)).score(some_batch()).logp, policy.score(some_batch()).logp)
