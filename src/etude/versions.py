"""Where a number came from: versions, commit, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from etude import __version__


def card() -> dict[str, Any]:
    """Where a number came from: versions, commit, machine."""
    names = ("torch", "transformers", "numpy", "reasoning-gym", "math-verify", "gymnasium", "pyarrow")
    return {
        "etude": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {n: metadata.version(n) for n in names},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def commit() -> str:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
