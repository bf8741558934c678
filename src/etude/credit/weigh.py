"""Gradients of losses, for credit that compares them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from etude.batch import pack
from etude.objective.terms import Objective
from etude.stages import Context
from etude.types import Signal


def gradient(objective: Objective, signals: Sequence[Signal], context: Context) -> Tensor:
    """f[P]: the gradient of a loss at the policy's weights, which are left without gradients."""
    learner, parameters = context.learner, [p for _, p in context.policy.parameters()]
    learner.forget()
    learner.accumulate(objective, pack(signals, context.sampling))
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    learner.forget()
    return torch.cat([g.flatten() for g in found])
