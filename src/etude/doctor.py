"""Is this machine fit, and how fast is it? Facts for a bug report."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from etude.batch import pack
from etude.errors import UserError
from etude.event_loop import run
from etude.machine import FLAGS, card, instructions
from etude.models import kernels
from etude.models.policy import Policy
from etude.models.tiny import tiny
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Sample
from etude.scale import local
from etude.scale.inspection import TESTED
from etude.scale.place import Place
from etude.tasks import confinement, sandbox_probe
from etude.types import Episode, Message, SamplingParams, Signal, Span, Task, Verdict

PRECISIONS = ("fp32", "bf16")
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "pyarrow",
    "reasoning-gym",
    "math-verify",
)
OPTIONAL = ("peft", "starlette", "uvicorn", "tensorboard", "wandb", "mlflow", "trackio", "vllm", "ray")


def examine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        **{k: v for k, v in card().items() if k != "versions"},
        "versions": {n: _version(n) for n in (*PACKAGES, *OPTIONAL)},
        "threads": torch.get_num_threads(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "instructions": {f: f in instructions() for f in FLAGS},
        "kernels": kernels.why_not() or "native",
        "programs": {"protection": confinement.protection(), "prevented": sandbox_probe.enforced()},
        "gap": agreement(),
        "gpus": gpus,
        "engine": f"{local.package()} {installed()}; tested versions of vLLM: {', '.join(TESTED)}",
        "gflops": {"fp32": _gflops(torch.float32), "bf16": _gflops(torch.bfloat16)},
    }


def agreement() -> dict[str, float | str]:
    """Mean |log p sampler - log p trainer| in nats a token, by precision, of a random model two layers deep and as wide as
    SmolLM2. 0: they agree to the last bit here. Where it cannot be computed, why."""
    found: dict[str, float | str] = {}
    for precision in PRECISIONS:
        try:
            found[precision] = _gap(tiny(layers=2, width=576, heads=9, kv_heads=3, precision=precision))
        except Exception as error:
            found[precision] = str(error).strip().split("\n")[0]
    return found


def _gap(policy: Policy) -> float:
    prompts = [policy.renderer.prompt([Message("user", "a" * (7 + 5 * i))]) for i in range(8)]
    params = SamplingParams(max_tokens=24)
    sampler = sampler_for(policy)

    async def replies() -> list[Sample]:
        return await asyncio.gather(*(sampler.sample(p, params, i) for i, p in enumerate(prompts)))

    task = Task((Message("user", "a"),), lambda answer: Verdict(0.0, False))
    signals = []
    for prompt, reply in zip(prompts, run(replies()), strict=True):
        said = Span("assistant", reply.tokens, sampled=True, logp=reply.logp)
        episode = Episode(task, (Span("user", prompt), said))
        signals.append(Signal(episode, episode.sampled.astype(np.float32)))
    batch = pack(signals, params)
    known = batch.sampled & batch.needed
    return float((policy.outputs(batch).logp.detach() - batch.behaviour)[known].abs().mean())


def installed() -> str:
    """Where the inference engine is, in words."""
    try:
        return f"in {local.python().parent.parent}"
    except UserError:
        return "not installed (etude engine install)"


def placement(path: str | Path) -> list[str]:
    """What keeps a run from beginning at a place, a sentence each."""
    return run(Place.read(path).examine())


def screen(found: dict[str, Any]) -> str:
    def line(name: str, value: Any) -> str:
        return f"{name:14} {value}"

    have = ", ".join(f for f, there in found["instructions"].items() if there) or "none of " + ", ".join(
        FLAGS
    )
    versions = ", ".join(f"{n} {v}" for n, v in found["versions"].items() if v)
    missing = ", ".join(n for n, v in found["versions"].items() if not v)
    return "\n".join(
        [
            line("etude", f"{found['etude']} ({found['commit']})"),
            line(
                "machine",
                f"{found['machine']['processor']}, {found['cores_allowed']} cores, {found['memory_gb']} GB",
            ),
            line("instructions", have),
            line("kernels", found["kernels"]),
            line("agreement", _agreement(found["gap"])),
            line("programs", sandbox_probe.sentence(found["programs"]["prevented"])),
            line("gpu", ", ".join(found["gpus"]) or "none"),
            line(
                "matrix product",
                f"{found['gflops']['fp32']} GFLOP/s fp32, {found['gflops']['bf16']} GFLOP/s bf16",
            ),
            line("engine", found["engine"]),
            line("python", found["python"]),
            line("packages", versions),
            line("not installed", missing or "nothing"),
        ]
    )


def _agreement(gap: Mapping[str, float | str]) -> str:
    same = [precision for precision, nats in gap.items() if nats == 0]
    said = [f"to the last bit in {' and '.join(same)}"] if same else []
    for precision, nats in gap.items():
        if isinstance(nats, str):
            said.append(f"{precision} cannot be computed ({nats})")
        elif nats:
            said.append(f"{nats:.2g} nats a token apart in {precision}")
    return "sampler and trainer: " + ", ".join(said)


def _gflops(dtype: Any, size: int = 1024) -> float:
    """The best of five products of two size x size matrices."""
    a = torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return round(2 * size**3 / best / 1e9, 1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
