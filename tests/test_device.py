"""A model on another device than the CPU: every recipe takes a step there, and nothing is mixed up on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import worlds_of_letters as letters
from etude.errors import UserError
from etude.methods import catalogue
from etude.models.device import chosen
from etude.models.policy import Policy
from etude.report.run import RunDirectory
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from recipes_apart import apart
from second_device import SECOND, second_device
from test_models_other import other
from test_packed import NEEDS, gradients, relative, stirred, uneven
from test_policy import made

SMALL = {
    "run__tasks_per_step": 3,
    "run__oversample": 2,
    "run__group_size": 3,
    "run__eval_problems": 0,
    "run__rescore_every": 1,
}


def plan(place: Path, recipe: str, device: str, steps: int = 1, **more: object):  # type: ignore[no-untyped-def]
    if "teacher" in catalogue()[recipe].all_needs:
        more["run__teacher"] = letters.model(place / "teacher", seed=2, layers=1, width=16)
    if not (place / "model").exists():
        letters.model(place, layers=1, width=16)
    return letters.plan(place, recipe, steps, run__device=device, **{**SMALL, **more})


@pytest.mark.parametrize("recipe", apart("credit", "objective"))
def test_every_recipe_takes_a_step_on_another_device(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with second_device(monkeypatch) as device:
        run = start(plan(tmp_path, recipe, device), tmp_path / "run", letters.words())
        assert run.learner.policy.device == SECOND
        train(run)
        run.close()
    assert len(RunDirectory.open(tmp_path / "run").metrics()) == 1


@pytest.mark.parametrize("case", ["qwen3", "gpt2", "gemma2"])
@pytest.mark.parametrize("lora", [0, 2])
def test_numbers_there_are_numbers_here(
    case: str, lora: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untied = {"tie_word_embeddings": False}  # moving a module takes wrapped tensors apart, but not CUDA's
    place = made(tmp_path, case) if case == "qwen3" else other(tmp_path / "m", case, **untied)
    more = {"lora_rank": lora, "heads": {"value": 1}, "backbone": "transformers", "recompute": bool(lora)}
    batch, found = uneven(), []
    here = stirred(Policy.load(str(place), "fp32", **more))  # type: ignore[arg-type]
    with second_device(monkeypatch) as device:
        there = stirred(Policy.load(str(place), "fp32", device=device, **more))  # type: ignore[arg-type]
        for policy in (here, there):
            out = policy.outputs(batch, NEEDS)
            assert out.entropy is not None
            slopes = gradients(policy, out.logp, out.entropy, out.heads["value"][:, 0])
            found.append({n: g.cpu() for n, g in slopes.items()})
        there.save(tmp_path / "saved")
    assert relative(found[1], found[0]) < 1e-6
    again = Policy.load(str(tmp_path / "saved"), "fp32")
    assert torch.allclose(again.score(batch).logp, here.score(batch).logp, atol=1e-4)


def test_a_run_there_is_resumed_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"

    def stop(step: int, metrics: object) -> None:
        if step == 1:
            raise KeyboardInterrupt

    with second_device(monkeypatch):
        settings = plan(tmp_path, "grpo", "auto", 2, run__checkpoint_every=1, run__eval_problems=4)
        run = start(settings, whole, letters.words())
        train(run)
        run.evaluate("last")
        run.close()
        run = start(settings, half, letters.words())
        run.on_step = stop
        run.checkpoint()
        with pytest.raises(KeyboardInterrupt):
            train(run)
        run.close()
        run, _ = resume(half, letters.words())
        train(run)
        run.evaluate("last")
        run.close()
    found = [RunDirectory.open(p).episodes(columns=["tokens", "logp"]).to_pylist() for p in (whole, half)]
    assert found[0] == found[1]
    assert RunDirectory.open(whole).card["device"] == str(SECOND)
    assert "packed" in RunDirectory.open(whole).card["engine"]
    monkeypatch.setattr("etude.models.policy.chosen", lambda name: "cpu")
    run, warnings = resume(whole, letters.words())
    run.close()
    assert f"device was '{SECOND}', is None" in warnings[0]


def test_mixing_devices_is_noticed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above stand on."""
    with second_device(monkeypatch):
        there, here = torch.ones(3, device=SECOND), torch.ones(3)
        assert (there + here.to(SECOND) + torch.tensor(2.0)).tolist() == [4, 4, 4]
        with pytest.raises(RuntimeError, match="on one device"):
            there + here
        with pytest.raises(RuntimeError, match="on one device"):
            here[there.long() - 1]
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


def test_the_device_that_is_asked_for_is_there_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen("cpu") == "cpu"
    assert chosen("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert chosen("auto") == "cpu"
    for name, words in (("tpu", "one of auto"), ("cuda", "finds no device 'cuda' here")):
        with pytest.raises(UserError, match=words) as caught:
            Policy.load("lab", device=name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="finds no device"):
        start(plan(tmp_path, "grpo", "cuda"), tmp_path / "run", letters.words())
    assert not (tmp_path / "run").exists()


def test_the_native_engine_is_the_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(made(tmp_path))
    assert Policy.load(place).engine == "native"
    with second_device(monkeypatch) as device:
        with pytest.raises(UserError, match="the native backbone cannot run"):
            Policy.load(place, device=device, backbone="native")
        assert Policy.load(place, device=device, lora_rank=2).backbone.native() is None
