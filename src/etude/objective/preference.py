"""Losses over pairs of answers to one task. A method's own file holds its formula, a function of the two `Side`s."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.batch import Batch
from etude.models.outputs import Outputs
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    log_ratio,
    objective,
    segment_sum,
    spread,
    sum_per_episode,
)
from etude.settings import Setting

PAIR = "pair"
"""Extra: the number of the pair that a token belongs to, from 1 within its group."""


@dataclass(frozen=True)
class Side:
    """The chosen or the rejected answers of P pairs, f32[P] each: log pi_theta(y|x) as a sum over tokens, the same less log
    pi_ref(y|x) (less that of the policy that sampled it, where pairs are `stored`; equal to `logp` where there is no reference),
    and the number of tokens |y|."""

    logp: Tensor
    over_reference: Tensor
    length: Tensor


PairLoss = Callable[[Side, Side], Tensor]
"""(chosen, rejected) -> f32[P]."""


def implicit_rewards(out: Outputs, batch: Batch) -> Tensor:
    """f32[B]: sum over an episode's trained tokens of log pi_theta - log pi_ref."""
    on = batch.weight("policy") != 0
    delta = torch.where(on, out.logp - batch.extras["reference"], 0.0)
    return segment_sum(delta, batch.episode)


def pairs_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """int64[P] each: the episodes that were chosen and rejected, pair by pair. Pairs lie within a group."""
    edges = torch.arange(int(batch.episode[-1]) + 2, device=batch.tokens.device)
    last = torch.searchsorted(batch.episode, edges)[1:] - 1
    sign = segment_sum(batch.advantage, batch.episode).sign()
    name = batch.group[last] * 1000 + batch.extras[PAIR][last].long()
    chosen, rejected = (sign > 0).nonzero()[:, 0], (sign < 0).nonzero()[:, 0]
    return chosen[name[chosen].argsort()], rejected[name[rejected].argsort()]


def sides(out: Outputs, batch: Batch, reference: bool = True, stored: bool = False) -> Side:
    """All B episodes of the batch as a `Side`."""
    on = batch.weight("policy") != 0
    logp = segment_sum(torch.where(on, out.logp, 0.0), batch.episode)
    over = implicit_rewards(out, batch) if reference and not stored else logp
    if stored:
        over = segment_sum(torch.where(on, log_ratio(out, batch), 0.0), batch.episode)
    return Side(logp, over, segment_sum(on.to(logp), batch.episode).clamp(min=1))


def taken(whole: Side, index: Tensor) -> Side:
    """The episodes int64[P] `index`."""
    return Side(whole.logp[index], whole.over_reference[index], whole.length[index])


def pairwise(loss: PairLoss, reference: bool = True, stored: bool = False) -> Term:
    """The mean of `loss` over pairs; each episode of a pair carries half of it. `stored`: the reference is the policy that sampled
    the answers, by the log-probabilities that were kept. Metric `preferred`: the share of pairs whose
    chosen answer became likelier against the reference than the rejected one (without one: is likelier a token)."""

    def of_tokens(out: Outputs, batch: Batch) -> TokenLoss:
        whole = sides(out, batch, reference, stored)
        chosen, rejected = pairs_of(batch)
        better, worse = taken(whole, chosen), taken(whole, rejected)
        both, zero = torch.cat([chosen, rejected]), torch.zeros_like(whole.logp)
        each = zero.index_add(0, both, loss(better, worse).repeat(2))
        margin = (
            better.over_reference - worse.over_reference
            if reference
            else better.logp / better.length - worse.logp / worse.length
        )
        right = zero.index_add(0, both, (margin > 0).to(zero).repeat(2))
        active = batch.weight("policy") != 0
        return spread(each, batch.episode, active), {"preferred": right[batch.episode]}

    return Term("preference", of_tokens, sum_per_episode)


def over_pairs(
    loss: PairLoss, *terms: Term, reference: bool = True, stored: bool = False, extras: Iterable[str] = ()
) -> Objective:
    """`pairwise(loss)` and further terms. Micro-batches hold whole groups, so that a pair is never cut."""
    reads = {"reference"} if reference and not stored else set()
    return objective(
        pairwise(loss, reference, stored), *terms, reads=reads, unit="group", extras={PAIR, *extras}
    )


def pair_loss(margin: Tensor | float, beta: float) -> Tensor:
    """-log sigmoid(beta x margin)."""
    return -F.logsigmoid(beta * torch.as_tensor(margin))


DpoBeta = Annotated[
    float, Setting("beta: inverse temperature of the implicit rewards beta log(pi / pi_ref)", low=0)
]


def dpo_loss(dpo_beta: DpoBeta = 0.1) -> Objective:
    """-log sigmoid(beta (d_chosen - d_rejected)), d = log pi_theta(y) - log pi_ref(y) (arXiv 2305.18290);
    mean over pairs. Each episode of a pair carries half of its loss."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        return pair_loss(chosen.over_reference - rejected.over_reference, dpo_beta)

    return over_pairs(loss)
