"""What a policy computes for a batch. Index t always describes `tokens[t]`, as seen from the prefix before it:
`logp[t]` is the log-probability of tokens[t], `entropy[t]` that of the distribution it is drawn from,
`value[t]` the value of the state in which it is chosen. The shift by one happens in `models.backbone.predicting` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Rows outside `batch.needed`, and the first token of a sequence, hold 0."""

    logp: Tensor  # f32[N], under the batch's sampling settings
    entropy: Tensor | None = None  # f32[N], nats; of the same distribution
    heads: Mapping[str, Tensor] = field(default_factory=dict)  # f32[N, K] per auxiliary head
    hidden: Tensor | None = None  # f32[N, D], last hidden state of the position before tokens[t]
    project: Callable[[Tensor], Tensor] | None = None  # f32[M, D] hidden states -> f32[M, V] logits
    replayed: bool = False  # what sampling computed was used: not compared with anything

    def logits(self, rows: Tensor) -> Tensor:
        """f32[M, V], raw (temperature 1), for the rows (bool[N] or int64[M]) asked for. Differentiable."""
        if self.hidden is None or self.project is None:
            raise ValueError("an objective that reads logits must declare needs={'hidden'}")
        return self.project(self.hidden[rows])

    def detach(self) -> Outputs:
        heads = {name: head.detach() for name, head in self.heads.items()}
        entropy = None if self.entropy is None else self.entropy.detach()
        hidden = None if self.hidden is None else self.hidden.detach()
        return Outputs(self.logp.detach(), entropy, heads, hidden, self.project)


def zeros(n: int, device: torch.device | str = "cpu") -> Outputs:
    return Outputs(torch.zeros(n, device=device))
