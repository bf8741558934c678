"""The machine and the software that a number came from."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from etude import __version__

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")  # that decide how numbers are computed
PACKAGES = ("torch", "transformers", "numpy", "reasoning-gym", "math-verify", "gymnasium", "pyarrow")


def card() -> dict[str, Any]:
    """Versions, commit and machine, recorded with every run."""
    return {
        "etude": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "instructions": instructions(),
        },
    }


def commit() -> str:
    """The commit of the checkout that etude runs from, "unknown" where it is none."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            encoding="utf-8",
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def processor() -> str:
    """The model of the processor, as far as the system tells."""
    return _cpuinfo("model name") or platform.processor() or "unknown"


def vendor() -> str:
    """The maker of the processor as Linux names it, such as "GenuineIntel"; "" elsewhere."""
    return _cpuinfo("vendor_id")


def cpu_flags() -> frozenset[str]:
    """The instruction sets of the processor; empty where the system does not tell (Linux does)."""
    return frozenset(_cpuinfo("flags").split())


def instructions() -> list[str]:
    """Those of `FLAGS` that the processor has."""
    return [flag for flag in FLAGS if flag in cpu_flags()]


def _cpuinfo(name: str) -> str:
    """The first entry `name` of Linux's /proc/cpuinfo, "" without one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
