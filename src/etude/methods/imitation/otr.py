"""OTR: every token of a demonstration as a one-step episode of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude import seeds
from etude.batch import Batch
from etude.credit.imitate import shown
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Group, Signal


def with_draws(samples: Annotated[int, Setting("tokens drawn per position; 0: exactly all", low=0)] = 256):
    """Demonstrations to imitate, with the uniforms f32[T, K] that decide which tokens are drawn there
    (OTR, arXiv 2509.26313)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = shown(groups)
        if not samples:
            return signals
        keys = [seeds.generator(context.seed, "otr", context.step, s.episode.task.key) for s in signals]
        draws = [
            k.random((len(s.advantage), samples), np.float32) for k, s in zip(keys, signals, strict=True)
        ]
        return [replace(s, extras={"draws": d}) for s, d in zip(signals, draws, strict=True)]

    return credit


def picked(p: Tensor, uniform: Tensor) -> Tensor:
    """int64[M, K]: tokens drawn from f[M, V] probabilities `p` by inverse CDF at f32[M, K] `uniform`."""
    found = torch.searchsorted(p.cumsum(-1), uniform.to(p.dtype))
    return found.clamp(max=p.shape[1] - 1)


def one_token(
    beta: Annotated[float, Setting("reward of a token that is not the demonstration's", high=1)] = -0.1,
    kappa: Annotated[float, Setting("temperature of the draws, times that of the run", low=1)] = 1.3,
    mean: MeanOver = "episode",
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


RECIPE = Recipe(
    name="otr",
    n=9,
    base=SFT,
    paper=Paper(
        "One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient", "2509.26313", 2025
    ),
    idea="At every position of a demonstration the model draws its next token many times over. "
    "A draw is rewarded where it hits the demonstration's token and punished a little where it misses. "
    "So imitation pulls as hard as the model already agrees, which leaves more of what it knew in place.",
    equation="L = - 1/T sum_t 1/K sum_j R(a_j) log pi(a_j|s_t),  a_j ~ pi^(1/kappa),  R = 1 if a_j = y*_t else beta",
    departures=(
        "guess: beta = -0.1 and kappa = 1.3 (the paper's values were not at hand)",
        "log pi is at the run's sampling temperature, 1 unless set otherwise, where the paper says 1",
    ),
    stages={"credit": stage(with_draws), "objective": stage(one_token)},
    claim="After fine-tuning on one family of tasks, OTR loses less accuracy on held-out families than SFT.",
    examples=(
        ByHand(
            "p = 1/4, 1/4, 1/2: where three uniforms fall",
            lambda: picked(torch.tensor([[0.25, 0.25, 0.5]]), torch.tensor([[0.1, 0.3, 0.9]])),
            [[0, 1, 2]],
        ),
        Reduction(
            "all 92 tokens drawn alike and hits alone rewarded: SFT over 92",
            "sft",
            {"credit.samples": 0, "objective.beta": 0.0, "objective.kappa": 1e9, "objective.mean": "token"},
            scale=1 / 92,
        ),
    ),
)
