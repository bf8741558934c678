"""Models as they are published: architectures without a native pass, older weight files, adapters, broken weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import UserError
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


def adapter(base: Path, place: Path, rows: int = 0) -> tuple[Path, torch.nn.Module]:
    """A LoRA adapter as PEFT saves it, and the model that it makes of its base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(base)
    if rows:
        module.resize_token_embeddings(rows)
    saved = {"modules_to_save": ["embed_tokens", "lm_head"]} if rows else {}
    adapted = get_peft_model(module, LoraConfig(r=2, target_modules=["q_proj", "o_proj"], **saved))
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value.normal_(generator=torch.Generator().manual_seed(1))
            elif "modules_to_save" in name and "lm_head" in name:
                value.add_(0.1)
    adapted.save_pretrained(place)
    return place, adapted.merge_and_unload()


def logp(module: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.tensor([tokens])).logits[0].float()


@pytest.mark.parametrize("rows", [0, 104])
@pytest.mark.parametrize("name", ["llama", "phi"])
def test_an_adapter_is_merged_into_its_base(name: str, rows: int, tmp_path: Path) -> None:
    if name == "phi":
        base = other(tmp_path / "base", "Cohere", **{**WIDE, "pad_token_id": 0})
    else:
        base = tiny_directory(tmp_path / "base", tie_word_embeddings=True)
    place, merged = adapter(base, tmp_path / "adapter", rows and rows + 30)
    policy = Policy.load(str(place), "fp32")
    out = policy.save(tmp_path / "out")
    assert not (out / UNVERIFIED).exists()
    from transformers import AutoModelForCausalLM

    theirs = logp(AutoModelForCausalLM.from_pretrained(out), [3, 4, 5, 6])
    assert torch.allclose(theirs, logp(merged, [3, 4, 5, 6]), atol=1e-4)
    assert policy.tokenizer.stops == Policy.load(str(base)).tokenizer.stops
    Policy.load(str(place), "bf16", lora_rank=2)


def test_an_adapter_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    base = tiny_directory(tmp_path / "base")
    place, _ = adapter(base, tmp_path / "adapter")
    about = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
    for changed, words in (
        ({"base_model_name_or_path": "/nowhere"}, "needs its base model '/nowhere'"),
        (
            {"base_model_name_or_path": None},
            "names no base model",
        ),
    ):
        (place / "adapter_config.json").write_text(json.dumps(about | changed), encoding="utf-8")
        with pytest.raises(UserError, match=words):
            Policy.load(str(place))
    (place / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    wide = tiny_directory(tmp_path / "wide", width=32)
    (base / "model.safetensors").write_bytes((wide / "model.safetensors").read_bytes())
    (base / "config.json").write_bytes((wide / "config.json").read_bytes())
    with pytest.raises(UserError, match="does not fit its base") as caught:
        Policy.load(str(place))
    assert "\n" not in str(caught.value)
    for file in place.glob("adapter_*"):
        (base / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="a whole model and an adapter beside it"):
        Policy.load(str(base))
    (place / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"without its adapter_model\.safetensors"):
        Policy.load(str(place))


@pytest.mark.parametrize("shards", [1, 2])
def test_pytorch_files_are_read_and_nothing_in_them_is_run(shards: int, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    place = tiny_directory(tmp_path / "m")
    before = Policy.load(str(place), "fp32").score(some_batch()).logp
    held = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    names = sorted(held)
    if shards == 1:
        torch.save(held, place / "pytorch_model.bin")
    else:
        parts = {"a.bin": names[:5], "b.bin": names[5:]}
        for file, part in parts.items():
            torch.save({n: held[n] for n in part}, place / file)
        index = {"weight_map": {n: file for file, part in parts.items() for n in part}}
        (place / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert torch.equal(Policy.load(str(place), "fp32").score(some_batch()).logp, before)

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    torch.save({**held, "x": Harm()}, place / ("pytorch_model.bin" if shards == 1 else "b.bin"))
    with pytest.raises(UserError, match="cannot be read") as caught:
        Policy.load(str(place))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_weights_that_are_not_finite_are_refused(name: str, value: float, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = tiny_directory(tmp_path / "m") if name == "llama" else other(tmp_path / "m", name)
    held = load_file(place / "model.safetensors")
    first = min(n for n in held if "weight" in n)
    held[first].view(-1)[3] = value
    save_file(held, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="NaN or infinity in"):
        Policy.load(str(place))


def test_absent_weights_are_refused_by_every_architecture(tmp_path: Path) -> None:
    """transformers would draw them at random, with a warning that nobody sees."""
    from safetensors.torch import load_file, save_file

    place = other(tmp_path / "m", "gpt2")
    held = load_file(place / "model.safetensors")
    del held["transformer.h.0.mlp.c_fc.weight"]
    save_file(held, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 tensors of the model"):
        Policy.load(str(place))


def test_trained_weights_that_diverged_are_kept_and_marked(tmp_path: Path) -> None:
    for n, place in enumerate((tiny_directory(tmp_path / "a"), other(tmp_path / "b", "gpt2"))):
        policy = Policy.load(str(place), "fp32")
        with torch.no_grad():
            policy.parameters()[0][1].fill_(float("nan"))
        policy.publish()
        where = policy.save(tmp_path / f"out{n}")
        assert "NaN" in (where / UNVERIFIED).read_text(encoding="utf-8")


STATES = {"state_size": 8, "num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 128}


@pytest.mark.parametrize("name", ["Mamba", "Mamba2", "Rwkv", "FalconMamba"])
def test_state_space_models_are_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    more = {"num_heads": 4, "head_dim": 16, "n_groups": 1} if name == "Mamba2" else {}
    with pytest.raises(UserError, match="state-space model") as caught:
        Policy.load(str(other(tmp_path / "m", name, **STATES, **more)))
    assert "\n" not in str(caught.value)
