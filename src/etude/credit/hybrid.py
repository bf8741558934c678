"""Attempts are reinforced, demonstrations imitated: which of a group's episodes teach in which way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def practised(right: Sequence[bool], gate: float) -> bool:
    """Whether the share of right attempts lies above the gate."""
    return float(np.mean(right)) > gate
