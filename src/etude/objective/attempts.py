"""Losses for text that had help when it was sampled, or that another wrote into the policy's answer."""

from __future__ import annotations

from torch import Tensor


def weighted(ratio: Tensor, advantage: Tensor) -> Tensor:
    """-rho_t A_t."""
    return -advantage * ratio


# ---- stages ------------------------------------------------------------------------------------------
