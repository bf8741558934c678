"""Gradients of losses, for credit that compares them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from etude.batch import pack
from etude.objective.terms import Objective
from etude.stages import Context
from etude.types import Signal


def gradient(objective: Objective, signals: Sequence[Signal], context: Context) -> Tensor:
    """f[P]: the gradient of a loss at the policy's weights, which are left without gradients."""
    return context.learner.gradient(objective, pack(signals, context.sampling))
