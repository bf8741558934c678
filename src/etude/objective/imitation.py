"""Losses towards given tokens: cross-entropy on demonstrations, distillation from a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.policy.outputs import Outputs
from etude.settings import Setting
from etude.train.batch import Batch


def cross_entropy(mean: MeanOver = "token") -> Objective:
    """-log pi_theta(y_t) on the tokens with an "imitation" weight: A = 1, reference probability pi_theta."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp

    return objective(Term("imitation", loss, MEANS[mean], weight="imitation"))


def bounded(gap: Tensor, clip: float | None) -> Tensor:
    """log pi - log teacher, the weight of a token's score function: positive where the policy says too much."""
    return gap if clip is None else gap.clamp(-clip, clip)


def reverse_kl(
    clip: Annotated[float | None, Setting("bound on |log pi - log teacher| per token", "nats", low=0)] = 10.0,
) -> Objective:
    """On-policy distillation: the policy gradient of KL(pi || teacher), whose per-token reward is
    log teacher(y_t) - log pi(y_t), at tokens that the policy sampled."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        gap = out.logp.detach() - batch.extras["teacher"]
        return bounded(gap, clip) * out.logp, {"reverse_kl": gap}

    return objective(Term("distill", loss, MEANS["token"]), reads={"teacher"})


def picked(p: Tensor, uniform: Tensor) -> Tensor:
    """int64[M, K]: tokens drawn from f[M, V] probabilities `p` by inverse CDF at f32[M, K] `uniform`."""
    found = torch.searchsorted(p.cumsum(-1), uniform.to(p.dtype))
    return found.clamp(max=p.shape[1] - 1)


def one_token(
    beta: Annotated[float, Setting("reward of a token that is not the demonstration's", high=1)] = -0.1,
    kappa: Annotated[float, Setting("temperature of the draws, times that of the run", low=1)] = 1.3,
    mean: MeanOver = "sequence",
) -> Objective:
    """-(1/K) sum_j R(a_j) log pi(a_j | s_t), a_j ~ pi^(1/kappa): R = 1 for the demonstration's token, else beta
    (OTR, arXiv 2509.26313)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        on = batch.weight("imitation") != 0
        target = batch.tokens[on, None]
        logits = out.logits(on) / batch.sampling.temperature
        logp, p = torch.log_softmax(logits, -1), torch.softmax(logits.detach() / kappa, -1)
        if "draws" in batch.extras:
            drawn = picked(p, batch.extras["draws"][on])
            hit = (drawn == target).to(p.dtype)
            hits, misses = hit.mean(-1), ((1 - hit) * logp.gather(1, drawn)).mean(-1)
        else:
            hits = p.gather(1, target)[:, 0]
            misses = (p * logp).sum(-1) - hits * logp.gather(1, target)[:, 0]
        blank = torch.zeros_like(out.logp)
        value = -(hits * out.logp[on] + beta * misses)
        return blank.masked_scatter(on, value.to(blank)), {"hits": blank.masked_scatter(on, hits.to(blank))}

    return objective(Term("one_token", loss, MEANS[mean], weight="imitation"), needs={"hidden"})


def repetition(p: Tensor, before: Tensor, decay: float, one_sided: bool = False) -> Tensor:
    """-log(1 - |P_n - decay P_{n-1}|) per token of a copy."""
    gap = p - decay * before
    gap = gap.clamp(min=0) if one_sided else gap.abs()
    return -(1 - gap).clamp(min=1e-20).log()


def unlearn_loops(
    decay: Annotated[float, Setting("what a copy may keep of the copy before", low=0, high=1)] = 0.5,
    one_sided: Annotated[bool, Setting("punish only what exceeds the target")] = False,
) -> Objective:
    """Cross-entropy on demonstrations; on loops, `repetition` of each token against the copy before
    (DITTO, arXiv 2206.02369)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        p = out.logp.exp()
        before = p.detach()[torch.arange(len(p)) - batch.extras["period"].long()]
        return repetition(p, before, decay, one_sided), {"repeat_probability": p}

    return cross_entropy() + objective(Term("loop", loss, weight="loop"))


def misread(batch: Batch) -> Tensor:
    """int64[N]: what the credit stage has drawn, so that no cut of the batch can change it."""
    return batch.extras["read"].long()


def cross_entropy_with_holes(mean: MeanOver = "token") -> Objective:
    return replace(cross_entropy(mean), corrupt=misread)
