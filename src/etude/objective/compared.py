"""Losses of reward models, over pairs of answers. A method's own file holds its formula, a function of a `ComparedPairs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.preference import PAIR, pairs_of
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.settings import Setting

REWARD = "reward"
"""The head, of K members, and the weight row that is 1 on the token at which an answer ends."""
STRENGTH, RATING, MEMBERS = "strength", "rating", "members"
"""Extras: how much better the chosen answer of a pair is; an answer's own rating (NaN: none); the members of an ensemble that
see the pair, as bits."""

Members = Annotated[
    int, Setting("heads of an ensemble, each of which sees four fifths of the pairs", low=1, high=16)
]


@dataclass(frozen=True)
class ComparedPairs:
    """P pairs: what the K members give the chosen and the rejected answer, f32[P, K] each; how much better the chosen one is,
    f32[P]; the ratings of both, f32[P] each, NaN where there are none; and a method's own extras of the pair, f32[P] each."""

    chosen: Tensor
    rejected: Tensor
    strength: Tensor
    rating_chosen: Tensor
    rating_rejected: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def margin(self) -> Tensor:
        """f32[P, K]: r(y+) - r(y-)."""
        return self.chosen - self.rejected


CompareLoss = Callable[[ComparedPairs], Tensor]
"""-> f32[P, K], the loss of each pair for each member."""


def seen_by(bits: Tensor, members: int) -> Tensor:
    """f32[P, K]: 1 where a member sees the pair; a lone member sees all, and a pair that no member sees is seen by all."""
    if members == 1:
        return torch.ones(len(bits), 1, dtype=bits.dtype, device=bits.device)
    place = torch.arange(members, device=bits.device)
    seen = ((bits.long()[:, None] >> place) & 1).to(bits)
    return torch.where(seen.sum(1, keepdim=True) > 0, seen, torch.ones_like(seen))


def comparing(loss: CompareLoss, members: int = 1, extras: Sequence[str] = ()) -> Term:
    """The mean of `loss` over the pairs, and over the members that see each; either answer carries half of it. Metrics:
    `preferred`, the share of pairs whose chosen answer has the larger mean number, and `margin`, by how much. `extras`: rows of
    the method's own that the loss reads at the end of the chosen answer."""

    def of_tokens(out: Outputs, batch: Batch) -> TokenLoss:
        end = _ends(batch)
        better, worse = (end[side] for side in pairs_of(batch))
        values = out.heads[REWARD]
        rating = batch.extras[RATING]
        found = ComparedPairs(
            values[better],
            values[worse],
            batch.extras[STRENGTH][better],
            rating[better],
            rating[worse],
            {name: batch.extras[name][better] for name in extras},
        )
        seen = seen_by(batch.extras[MEMBERS][better], members).to(values)
        each = (loss(found) * seen).sum(1) / seen.sum(1)
        both, zero = torch.cat([better, worse]), torch.zeros_like(values[:, 0])
        lead = found.margin.detach().mean(1)
        metrics = {
            "preferred": zero.index_add(0, both, (lead > 0).to(values).repeat(2)),
            "margin": zero.index_add(0, both, lead.repeat(2)),
        }
        return zero.index_add(0, both, each.repeat(2)), metrics

    return Term("compare", of_tokens, sum_per_episode, weight=REWARD)


def _ends(batch: Batch) -> Tensor:
    """int64[B]: the token at which each episode's answer ends."""
    on = (batch.weight(REWARD) != 0).nonzero()[:, 0]
    end = torch.zeros(int(batch.episode[-1]) + 1, dtype=torch.int64, device=batch.tokens.device)
    return end.index_copy(0, batch.episode[on], on)


def over_comparisons(loss: CompareLoss, members: int = 1, extras: Sequence[str] = ()) -> Objective:
    """`comparing(loss)` over `members` heads. Micro-batches hold whole groups, so that a pair is never cut."""
    term = comparing(loss, members, extras)
    made = objective(term, unit="group", extras={PAIR, STRENGTH, RATING, MEMBERS, *extras})
    return replace(made, heads={REWARD: members})
