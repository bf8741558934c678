"""The gradient that a run has accumulated beside that of another program."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from etude.train.run import Run


def same_gradient(run: Run, theirs: Mapping[str, Tensor]) -> None:
    """Every parameter's gradient is `theirs` to a thousandth of its norm. Ends the run, whose weights it overwrites."""
    policy = run.learner.policy
    with torch.no_grad():
        for _, parameter in policy.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    policy.publish()
    mine = policy.backbone.weights.state_dict()
    run.close()
    compared = 0
    for name, gradient in theirs.items():
        if name in mine and gradient.norm() > 1e-6:
            error = (mine[name] - gradient).norm() / gradient.norm()
            assert error < 1e-3, f"{name}: {error}"
            compared += 1
    assert compared > 10
