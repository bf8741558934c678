"""Is this machine fit, and how fast is it? Facts for a bug report."""

from __future__ import annotations

import os
import time
from importlib import metadata
from typing import Any

import psutil
import torch

from etude.machine import card, cpu_flags
from etude.models import kernels
from etude.tasks import sandbox, sandbox_probe

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
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
    flags = cpu_flags()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        **{k: v for k, v in card().items() if k != "versions"},
        "versions": {n: _version(n) for n in (*PACKAGES, *OPTIONAL)},
        "threads": torch.get_num_threads(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "instructions": {f: f in flags for f in FLAGS},
        "kernels": kernels.why_not() or "native",
        "programs": {"protection": sandbox.protection(), "prevented": sandbox_probe.enforced()},
        "gpus": gpus,
        "gflops": {"fp32": _gflops(torch.float32), "bf16": _gflops(torch.bfloat16)},
    }


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
            line("programs", sandbox_probe.sentence(found["programs"]["prevented"])),
            line("gpu", ", ".join(found["gpus"]) or "none"),
            line(
                "matrix product",
                f"{found['gflops']['fp32']} GFLOP/s fp32, {found['gflops']['bf16']} GFLOP/s bf16",
            ),
            line("python", found["python"]),
            line("packages", versions),
            line("not installed", missing or "nothing"),
        ]
    )


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
