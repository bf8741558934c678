"""Models that can be loaded, and those that are refused in one sentence; what is saved is loadable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from etude.errors import UserError
from etude.models.config import ModelConfig
from etude.models.policy import Policy
from etude.models.save import UNVERIFIED
from test_policy import made, place, some_batch, theirs  # noqa: F401  (a fixture)


@pytest.mark.parametrize("case", ["llama", "qwen2"])
def test_save_is_loadable_and_checked(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, batch = Policy.load(str(made(tmp_path, case)), "fp32"), some_batch()
    where = policy.save(tmp_path / "out" / "model")
    _, expected = theirs(where, batch)
    assert torch.allclose(policy.score(batch).logp, expected, atol=1e-4)
    assert torch.equal(Policy.load(str(where), "fp32").score(batch).logp, policy.score(batch).logp)
    assert policy.save(where) == where  # a model is replaced
    assert [p.name for p in where.parent.iterdir()] == ["model"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not a model directory"):
        policy.save(tmp_path / "mine")

    def spoilt(tensors: object, directory: Path) -> None:
        changed = [(n, t * 1.1 if "q_proj.weight" in n else t) for n, t in tensors]  # type: ignore[attr-defined]
        from etude.models.directory import write_tensors

        write_tensors(changed, directory)

    monkeypatch.setattr("etude.models.save.write_tensors", spoilt)
    assert policy.save(where) == where
    said = (where / UNVERIFIED).read_text(encoding="utf-8")
    assert "other logits" in said
    assert "not verified" in capsys.readouterr().err
    kept = where.with_name("model-before-1")  # what was verified is not lost to what is not
    assert str(kept) in said
    assert not (kept / UNVERIFIED).exists()
    assert torch.equal(Policy.load(str(kept), "fp32").score(batch).logp, policy.score(batch).logp)


def test_an_unknown_architecture_goes_through_transformers(tmp_path: Path) -> None:
    """A rope variant that the native pass refuses."""
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    with pytest.raises(Exception, match="yarn"):
        made(tmp_path, rope_parameters=rope)
    import json

    path = made(tmp_path)
    config = json.loads((path / "config.json").read_text()) | {"rope_parameters": rope}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="yarn"):
        Policy.load(str(path), backbone="native")
    policy, batch = Policy.load(str(path), "fp32"), some_batch()
    assert torch.allclose(policy.score(batch).logp, theirs(path, batch)[1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("/nowhere/at/all", {}, "no model directory"),
        ("./nothing", {}, "no model directory"),
        ("smolm2", {}, "no model directory"),
        ("smollm2", {"precision": "fp16"}, "precision"),
        ("smollm2", {"backbone": "jax"}, "backbone"),
    ],
)
def test_bad_names_are_refused_in_one_sentence(name: str, settings: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Policy.load(name, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_incomplete_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        Policy.load(str(tmp_path))
    path = made(tmp_path)
    (path / "model.safetensors").rename(path / "kept")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        Policy.load(str(path))
    (path / "model.safetensors").write_bytes((path / "kept").read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        Policy.load(str(path))


def test_shape_refuses_what_it_cannot_compute() -> None:
    base = {"model_type": "llama", "num_attention_heads": 2, "hidden_size": 8, "num_hidden_layers": 1}
    base |= {"vocab_size": 5, "intermediate_size": 8}
    assert ModelConfig.from_transformers(base).head_dim == 4
    for change in (
        {"model_type": "gpt2"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
    ):
        with pytest.raises(Exception, match=r".+"):
            ModelConfig.from_transformers({**base, **change})
