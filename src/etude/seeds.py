"""Keyed randomness: every draw comes from a hash of what it is for, so neighbouring seeds share nothing.

There is no global random state anywhere in etude, hence none to checkpoint: a stream is named by
(run seed, purpose, step, task, sample) and can be opened again at any time.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key(*parts: object) -> int:
    """A 63-bit integer that depends on every part, in order. Parts must have a stable `repr`."""
    text = "\x1f".join(f"{type(part).__name__}:{part!r}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: object) -> np.random.Generator:
    """A counter-based NumPy stream named by `parts`."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


def torch_generator(*parts: object) -> torch.Generator:
    """A CPU torch stream named by `parts`."""
    import torch

    return torch.Generator().manual_seed(key(*parts))
