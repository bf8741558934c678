"""Which device a model runs on."""

from __future__ import annotations

import torch

from etude.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def chosen(name: str) -> str:
    """The device that a setting means: "auto" is the first CUDA (or ROCm) device where there is one, else the CPU. Raises
    `UserError` for one that is not here."""
    if name not in DEVICES:
        raise UserError(f"the device is one of {', '.join(DEVICES)}; got '{name}'")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    absent = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if absent.get(name):
        raise UserError(f"PyTorch finds no device '{name}' here; run.device=auto takes what there is")
    return name


def named(device: torch.device) -> str:
    """A device as people know it: "cpu", or "cuda (NVIDIA H100 80GB HBM3, 79.1 GiB)"."""
    if device.type != "cuda":
        return str(device)
    found = torch.cuda.get_device_properties(device)
    return f"{device} ({found.name}, {found.total_memory / 2**30:.1f} GiB)"


def widest(device: torch.device) -> torch.dtype:
    """The widest type of number that a device computes with: float64, but on Apple's GPUs float32."""
    return torch.float32 if device.type == "mps" else torch.float64
