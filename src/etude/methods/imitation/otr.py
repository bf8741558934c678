"""OTR (arXiv 2509.26313): every token of a demonstration is a one-step episode of its own. At each position the model
draws its next token many times; draws that hit the demonstration's token are rewarded, misses punished a little. So
imitation pulls as hard as the model already agrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude import seeds
from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, shown
from etude.fixtures.examples import EXAMPLE_TASK
from etude.fixtures.given import GivenContext, GivenModel, example_demonstration, example_loss, given_stage
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

DRAWS = "draws"  # extra, f32[T, K]: the uniforms that decide which tokens are drawn


@writes(IMITATION, extras=(DRAWS,))
def with_draws(
    draws: Annotated[int, Setting("K, tokens drawn per position; 0: exactly all", low=0)] = 256,
) -> Credit:
    """Imitation of the demonstrations, with uniforms for the draws (none where the sum over all tokens is exact)."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = shown(groups)
        if not draws:
            return signals
        rngs = [seeds.generator(context.seed, "otr", context.step, s.episode.task.key) for s in signals]
        rows = [g.random((len(s.advantage), draws), np.float32) for g, s in zip(rngs, signals, strict=True)]
        return [replace(s, extras={DRAWS: row}) for s, row in zip(signals, rows, strict=True)]

    return credit


def inverse_cdf(p: Tensor, uniform: Tensor) -> Tensor:
    """int64[M, K]: tokens drawn from f[M, V] probabilities `p` at f32[M, K] `uniform`."""
    found = torch.searchsorted(p.cumsum(-1), uniform.to(p.dtype))
    return found.clamp(max=p.shape[1] - 1)


def one_token(
    miss_reward: Annotated[
        float, Setting("beta: reward of a token that is not the demonstration's", high=1)
    ] = -0.1,
    draw_temperature: Annotated[
        float, Setting("kappa: temperature of the draws, times that of the run", low=1)
    ] = 1.3,
    mean: MeanOver = "episode",
) -> Objective:
    """-(1/K) sum_j R(a_j) log pi(a_j | s_t), a_j ~ pi^(1/kappa), R(a) = 1 for a = y*_t, else beta."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        on = batch.weight(IMITATION) != 0
        target = batch.tokens[on, None]
        logits = out.logits(on) / batch.sampling.temperature
        logp, p = torch.log_softmax(logits, -1), torch.softmax(logits.detach() / draw_temperature, -1)
        if (
            DRAWS in batch.extras
        ):  # the mean over K draws of [a_j = y*_t], and of log pi(a_j) where a_j != y*_t
            drawn = inverse_cdf(p, batch.extras[DRAWS][on])
            hit = (drawn == target).to(p.dtype)
            hits, misses = hit.mean(-1), ((1 - hit) * logp.gather(1, drawn)).mean(-1)
        else:  # their expectations
            hits = p.gather(1, target)[:, 0]
            misses = (p * logp).sum(-1) - hits * logp.gather(1, target)[:, 0]
        blank = torch.zeros_like(out.logp)
        value = -(hits * out.logp[on] + miss_reward * misses)
        return blank.masked_scatter(on, value.to(blank)), {"hits": blank.masked_scatter(on, hits.to(blank))}

    return objective(Term("one_token", loss, MEANS[mean], weight=IMITATION), needs={"hidden"}, extras={DRAWS})


LN2 = math.log(2)


def _loss(uniforms: Sequence[float] = (), **settings: float) -> float:
    """The loss where the next token is 0, 1 or 2 with probability 1/4, 1/4 and 1/2, and the demonstration says 1."""
    signal = imitate(example_demonstration((1,)), np.array([False, True]))
    extras = {DRAWS: np.array([[0.0] * len(uniforms), uniforms], np.float32)} if uniforms else {}
    model = GivenModel(logp=[-2 * LN2], hidden=[[-2 * LN2, -2 * LN2, -LN2]])
    objective = given_stage(RECIPE, "objective", **settings)
    return example_loss(objective, [replace(signal, extras=extras)], model)


def _drawn() -> list[int]:
    """Draws at each position, and whether all lie in [0, 1) and credit laid the imitation's weight on the demonstration."""
    group = Group(EXAMPLE_TASK, (), demonstrations=(example_demonstration((1,)),))
    (signal,) = given_stage(RECIPE, "credit", draws=3)([group], GivenContext())
    row = signal.extras[DRAWS]
    return [row.shape[1], bool((row >= 0).all() and (row < 1).all()), int(signal.weights[IMITATION].sum())]


RECIPE = Recipe(
    name="otr",
    base=SFT,
    paper=Paper(
        "One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient", "2509.26313", 2025
    ),
    idea="At every position of a demonstration the model draws its next token many times over. "
    "A draw is rewarded where it hits the demonstration's token and punished a little where it misses. "
    "So imitation pulls as hard as the model already agrees, which leaves more of what it knew in place.",
    equation="L = - 1/T sum_t 1/K sum_j R(a_j) log pi(a_j|s_t),  a_j ~ pi^(1/kappa),  R = 1 if a_j = y*_t else beta",
    departures=(
        "could not be verified: no code is public; the loss is that which public reviews of the paper describe",
        "guess: beta (miss_reward) = -0.1 and kappa (draw_temperature) = 1.3 (the paper's values were not at hand)",
        "log pi is at the run's sampling temperature, 1 unless set otherwise, where the paper says 1",
    ),
    stages={"credit": stage(with_draws), "objective": stage(one_token)},
    claim="After fine-tuning on one family of tasks, OTR loses less accuracy on held-out families than SFT.",
    manipulation=(Manipulated("the model does not agree with every token already", "hits", at_most=0.9),),
    examples=(
        ByHand("three uniforms for each token of a demonstration, the prompt's included", _drawn, [3, 1, 1]),
        ByHand(
            "p = 1/4, 1/4, 1/2: where three uniforms fall",
            lambda: inverse_cdf(torch.tensor([[0.25, 0.25, 0.5]]), torch.tensor([[0.1, 0.3, 0.9]])),
            [[0, 1, 2]],
        ),
        # One draw hits, two miss: -(ln 1/4 - 0.1 (ln 1/4 + ln 1/2)) / 3.
        ByHand(
            "draws of 0, 1 and 2",
            lambda: _loss((0.1, 0.3, 0.9), draw_temperature=1.0),
            (2 - 0.1 * 3) * LN2 / 3,
        ),
        # E: -(1/4 ln 1/4 - 0.1 (1/4 ln 1/4 + 1/2 ln 1/2)).
        ByHand("all tokens", lambda: _loss(draw_temperature=1.0), (0.5 - 0.1 * 1) * LN2),
        # Draws from (1/2, 1/2, 1/sqrt 2) / (1 + 1/sqrt 2): y* has 1 / (2 + sqrt 2), and the misses' mean is -ln 2.
        ByHand("all tokens, kappa = 2", lambda: _loss(draw_temperature=2.0), (2 - 2**0.5 - 0.1) * LN2),
        Reduction(
            "all 92 tokens drawn alike and hits alone rewarded: SFT over 92",
            "sft",
            {
                "credit.draws": 0,
                "objective.miss_reward": 0.0,
                "objective.draw_temperature": 1e9,
                "objective.mean": "token",
            },
            scale=1 / 92,
        ),
    ),
)
