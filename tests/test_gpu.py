"""On a CUDA device: numbers against the CPU's, kernels, memory. `pytest -m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import worlds_of_letters as letters
from etude.models import packed
from etude.models.policy import Policy
from etude.report.run import RunDirectory
from etude.train.loop import train
from etude.train.setup import start
from test_models_other import other
from test_packed import NEEDS, gradients, relative, stirred, uneven
from test_policy import made

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here"),
]


@pytest.mark.parametrize("case", ["llama", "qwen3", "mistral", "gpt2", "gemma2"])
@pytest.mark.parametrize("lora", [0, 2])
def test_numbers_are_those_of_the_cpu(case: str, lora: int, tmp_path: Path) -> None:
    place = other(tmp_path / "m", case) if case in ("gpt2", "gemma2") else made(tmp_path, case)
    more = {"lora_rank": lora, "heads": {"value": 1}, "backbone": "transformers"}
    found, rows = [], []
    for device in ("cpu", "cuda"):
        policy = stirred(Policy.load(str(place), "fp32", device=device, **more))  # type: ignore[arg-type]
        out = policy.outputs(uneven(), NEEDS)
        assert out.entropy is not None
        assert "packed" in policy.engine
        rows.append(out.logp.detach().cpu())
        slopes = gradients(policy, out.logp, out.entropy, out.heads["value"][:, 0])
        found.append({n: g.cpu() for n, g in slopes.items()})
    assert torch.allclose(rows[0], rows[1], atol=1e-4)
    assert relative(found[1], found[0]) < 1e-4


def test_flash_attention_is_used_and_right(tmp_path: Path) -> None:
    """In bfloat16, against scaled-dot-product attention over rectangles."""
    place = made(tmp_path, "qwen3", head_dim=64)
    policy = Policy.load(str(place), "bf16", device="cuda")
    assert policy.backbone.flash == packed.can_flash(policy.backbone.module)  # type: ignore[attr-defined]
    first = policy.score(uneven()).logp
    policy.backbone.flash = False  # type: ignore[attr-defined]
    assert (policy.score(uneven()).logp - first).abs().max() < 0.1


@pytest.mark.parametrize("recipe", ["grpo", "ppo", "dpo", "distill"])
def test_a_run(recipe: str, tmp_path: Path) -> None:
    more = {"run__teacher": letters.model(tmp_path / "teacher", seed=2)} if recipe == "distill" else {}
    plan = letters.plan(tmp_path, recipe, 2, run__device="cuda", **more)
    run = start(plan, tmp_path / "run", letters.words())
    train(run)
    run.close()
    gaps = [m["gap"] for m in RunDirectory.open(tmp_path / "run").metrics() if "gap" in m]
    assert all(gap < 1e-3 for gap in gaps)  # fp32: sampler and trainer differ by rounding alone


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("recipe", ["grpo", "ppo", "dpo", "spa_rl"])
def test_two_gpus_train_as_one_process(recipe: str, tmp_path: Path) -> None:
    """By NCCL, in float32."""
    from etude.models.tiny import tiny_directory
    from etude.scale.ranks import Ranks
    from two_ranks import same_as_alone

    first, second = (str(tiny_directory(tmp_path / f"m{s}", width=32, seed=s)) for s in (1, 2))
    ranks = Ranks(2, backend="nccl", deadline=120.0)
    ranks.start()
    try:
        same_as_alone(recipe, first, second, ranks, device="cuda")
    finally:
        ranks.close()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_lost_gpu_ends_the_group_in_a_sentence() -> None:
    from etude.scale.ranks import RankLost, Ranks
    from two_ranks import forget

    ranks = Ranks(2, backend="nccl", deadline=60.0)
    ranks.start()
    ranks._processes[0].kill()
    with pytest.raises(RankLost, match="trainer rank 1 was ended by SIGKILL"):
        ranks.everywhere(forget)
