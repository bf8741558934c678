"""The algebra of objectives. Every post-training gradient is

    mask x advantage x grad log pi / reference probability          (unified estimator, arXiv 2509.04419)

so an objective is a few `Term`s: a loss per token, the weight row that says where it acts, and the mean that
turns its sum into a number. Terms return sums; only `train.step` divides, by denominators that were counted
on the whole step before it was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from etude.batch import Batch
from etude.models.outputs import Outputs

TokenLoss = Tensor | tuple[Tensor, Mapping[str, Tensor]]
"""f32[N], the loss of every token before weighting, and optionally metrics, f32[N] each, averaged over the
term's active tokens."""

Loss = Callable[[Outputs, Batch], TokenLoss]


@dataclass(frozen=True)
class Mean:
    """How a sum over tokens becomes a number: token t counts `share[t]`, the total is divided by `count`.
    Both see only the mask, never the model, so they hold for the whole step whatever the cuts."""

    name: str
    share: Callable[[Batch, Tensor], Tensor]  # (batch, active bool[N]) -> f32[N]
    count: Callable[[Batch, Tensor], float]


def _length(batch: Batch, active: Tensor) -> Tensor:
    """f32[N]: the number of active tokens in the episode of each token (at least 1)."""
    return segment_sum(active.float(), batch.episode)[batch.episode].clamp(min=1)


def _units(index: Tensor, active: Tensor) -> float:
    return float(len(torch.unique(index[active])))


# sum over all tokens of the step / their number (DAPO)
per_token = Mean("token", lambda b, a: torch.ones_like(b.behaviour), lambda b, a: float(a.sum()))
# mean over the tokens of an episode, then over episodes (GRPO)
per_episode = Mean("episode", lambda b, a: 1 / _length(b, a), lambda b, a: _units(b.episode, a))
# sum over the tokens of an episode, mean over episodes (REINFORCE)
sum_per_episode = Mean("sum", lambda b, a: torch.ones_like(b.behaviour), lambda b, a: _units(b.episode, a))


def per_constant(length: float) -> Mean:
    """Sum over tokens / (episodes x a constant length): no length bias (Dr. GRPO, arXiv 2503.20783)."""
    return Mean(
        f"constant {length:g}",
        lambda b, a: torch.ones_like(b.behaviour),
        lambda b, a: length * _units(b.episode, a),
    )


def sharing_denominator(mean: Mean, weight: str = "policy") -> Mean:
    """`mean`, divided by what a term on the row `weight` is divided by: a few sequences laid beside many count as
    members of one batch, not as a mean of their own."""

    def count(batch: Batch, active: Tensor) -> float:
        return max(1.0, mean.count(batch, batch.weight(weight) != 0))

    return Mean(f"{mean.name} beside {weight}", mean.share, count)


MEANS = {"token": per_token, "episode": per_episode, "sum": sum_per_episode}


@dataclass(frozen=True)
class Term:
    """coefficient x sum_t weight_t share_t loss_t / count."""

    name: str
    loss: Loss
    mean: Mean = per_token
    weight: str = "policy"
    coefficient: float = 1.0
    proportional: bool = False  # the loss vanishes where the advantage is 0, so such episodes may be skipped

    def active(self, batch: Batch) -> Tensor:
        """bool[N]: the tokens in the term's denominator."""
        return batch.weight(self.weight) != 0

    def count(self, batch: Batch) -> float:
        return self.mean.count(batch, self.active(batch))

    def total(self, out: Outputs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum (scalar, differentiable) and the sums of its metrics over active tokens."""
        result = self.loss(out, batch)
        loss, metrics = result if isinstance(result, tuple) else (result, {})
        active = self.active(batch)
        share = torch.where(active, batch.weight(self.weight) * self.mean.share(batch, active), 0.0)
        total = (torch.where(active, loss, 0.0) * share).sum()
        return total, {k: torch.where(active, v.detach(), 0.0).sum() for k, v in metrics.items()}


@dataclass(frozen=True)
class Objective:
    """A sum of terms. `needs`: what `models.outputs` must provide beyond log-probabilities: "entropy",
    "hidden". `reads`: auxiliary models whose log-probability of every token stands in `batch.extras`. `heads`:
    auxiliary linear heads on the trunk {name: outputs}. `unit`: the smallest piece that a micro-batch may hold
    ("episode" | "group" | "batch"). `corrupt` may change the input tokens of a batch
    (not its targets) before the forward pass; anything random about that is drawn in credit. `under`: in what context a policy
    computes a micro-batch for this loss (hooks on its hidden states). `extras`: the rows of
    `batch.extras` that losses read, beside the log-probabilities in `reads`; `silent`: weight rows and extras that
    these settings leave unread (`etude.channels`)."""

    terms: tuple[Term, ...]
    needs: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    heads: Mapping[str, int] = field(default_factory=dict)
    unit: str = "episode"
    corrupt: Callable[[Batch], Tensor] | None = None
    under: Callable[[Any, Batch], AbstractContextManager[Any]] | None = None  # (policy, micro-batch)
    extras: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()

    def __add__(self, other: Objective) -> Objective:
        units = ("episode", "group", "batch")
        return Objective(
            self.terms + other.terms,
            self.needs | other.needs,
            self.reads | other.reads,
            {**self.heads, **other.heads},
            max(self.unit, other.unit, key=units.index),
            self.corrupt or other.corrupt,
            self.under or other.under,
            self.extras | other.extras,
            self.silent | other.silent,
        )


def objective(
    *terms: Term,
    needs: Iterable[str] = (),
    reads: Iterable[str] = (),
    unit: str = "episode",
    extras: Iterable[str] = (),
    silent: Iterable[str] = (),
    **heads: int,
) -> Objective:
    return Objective(
        terms,
        frozenset(needs),
        frozenset(reads),
        heads,
        unit,
        extras=frozenset(extras),
        silent=frozenset(silent),
    )


def averaged(whole: Objective, mean: Mean) -> Objective:
    """The same losses under another mean."""
    return replace(whole, terms=tuple(replace(t, mean=mean) for t in whole.terms))


# ---- the factors that losses are made of -------------------------------------------------------------


def segment_sum(values: Tensor, index: Tensor) -> Tensor:
    """f32[K]: sums of f32[N] `values` over equal entries of ascending int64[N] `index` (0..K-1)."""
    size = int(index[-1]) + 1 if len(index) else 0
    return torch.zeros(size, dtype=values.dtype, device=values.device).index_add(0, index, values)


def segment_mean(values: Tensor, index: Tensor, where: Tensor) -> Tensor:
    """f32[K]: means over the tokens `where` (bool[N]); 0 for a segment without any."""
    number = segment_sum(where.to(values.dtype), index).clamp(min=1)
    return segment_sum(torch.where(where, values, 0.0), index) / number


def spread(per_unit: Tensor, index: Tensor, active: Tensor) -> Tensor:
    """f32[N]: one loss per unit (f32[K]) laid evenly on the unit's active tokens, so that summing over
    tokens gives it back. For losses of whole sequences or pairs, under a mean whose share is 1."""
    number = segment_sum(active.float(), index).clamp(min=1)
    return torch.where(active, (per_unit / number)[index], 0.0)


def log_ratio(out: Outputs, batch: Batch, limit: float = 20.0) -> Tensor:
    """f32[N]: log pi_theta - log pi_old per sampled token, 0 elsewhere; clamped so that exp stays finite."""
    known = batch.sampled & batch.needed
    return torch.where(known, out.logp - batch.behaviour, 0.0).clamp(-limit, limit)


def per_answer(log_ratio: Tensor, answer: Tensor) -> Tensor:
    """f[N]: at each token, the log-ratio of its whole answer; int64[N] `answer` numbers the answers."""
    return segment_sum(log_ratio, answer)[answer]


def surrogate(ratio: Tensor, advantage: Tensor, low: float, high: float, dual: float | None = None) -> Tensor:
    """-min(rho A, clip(rho, 1-low, 1+high) A): PPO's clipped loss (arXiv 1707.06347). `dual` bounds the loss
    of negative advantages by dual * |A| (dual clip, arXiv 1912.09729)."""
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    if dual is not None:
        loss = torch.where(advantage < 0, torch.minimum(loss, -dual * advantage), loss)
    return loss


def clipped_share(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """1.0 where the clip cuts the gradient off."""
    return (((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - low))).float()


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """Schulman's unbiased, positive estimate of KL(pi || ref) at sampled tokens: r - 1 - log r, r = ref/pi."""
    delta = (reference - logp).clamp(-20, 20)
    return torch.expm1(delta) - delta
