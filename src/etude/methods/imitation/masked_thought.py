"""Masked thought (arXiv 2403.02178): supervised fine-tuning on solutions with holes in them. Some tokens of the solution
are replaced in what the model reads, and it must still predict all the right ones; the share of holes grows over the
run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION, shown
from etude.fixtures.given import GivenContext, beyond_prompt, example_demonstration, given_stage
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

READ = "read"  # extra: the tokens that the model reads


def masked_now(progress: float, masked_share: float, ramp_share: float) -> float:
    """p: rises linearly from 0 to `masked_share` over the first `ramp_share` of the run."""
    return masked_share * min(1.0, progress / ramp_share) if ramp_share else masked_share


@writes(IMITATION, extras=(READ,))
def with_holes(
    masked_share: Annotated[
        float, Setting("share of solution tokens that are replaced", low=0, high=1)
    ] = 0.4,
    ramp_share: Annotated[
        float, Setting("share of the run over which it rises from 0", low=0, high=1)
    ] = 0.66,
    random_share: Annotated[
        float, Setting("share replaced at random, not by the end token", low=0, high=1)
    ] = 1.0,
) -> Credit:
    """Imitation of the demonstrations y; what the model reads is m(y), which replaces each token with probability p,
    drawn anew at every step. What it shall say stays as it is."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        tokenizer, p = context.policy.tokenizer, masked_now(context.progress, masked_share, ramp_share)
        signals = []
        for signal in shown(groups):
            tokens = signal.episode.tokens
            rng = context.rng("holes", signal.episode.task.key)
            hole = (rng.random(len(tokens)) < p) & (signal.weights[IMITATION] > 0)
            noise = rng.integers(tokenizer.backend.get_vocab_size(), size=len(tokens))
            filling = np.where(rng.random(len(tokens)) < random_share, noise, tokenizer.stops[0])
            read = np.where(hole, filling, tokens).astype(np.float32)
            signals.append(replace(signal, extras={READ: read}))
        return signals

    return credit


def misread(batch: Batch) -> Tensor:
    """int64[N]: what the credit stage has drawn, so that no cut of the batch can change it."""
    return batch.extras[READ].long()


def cross_entropy_with_holes(mean: MeanOver = "token") -> Objective:
    """-log pi(y_t | what is read before it). Metric `replaced`: the share of the read tokens that are not the solution's."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp, {"replaced": (misread(batch) != batch.tokens).to(out.logp)}

    term = Term("imitation", loss, MEANS[mean], weight=IMITATION)
    return replace(objective(term, extras={READ}), corrupt=misread)


def _read(progress: float, **settings: float) -> list[float]:
    """What is read of a solution 5, 6, 7 at this progress."""
    group = Group(SHOWN.task, (), demonstrations=(SHOWN,))
    credit = given_stage(RECIPE, "credit", masked_share=1.0, random_share=0.0, **settings)
    return beyond_prompt(credit([group], GivenContext(progress=progress)), READ)


SHOWN = example_demonstration((5, 6, 7))
RECIPE = Recipe(
    name="masked_thought",
    base=SFT,
    paper=Paper(
        "Masked Thought: Simply Masking Partial Reasoning Steps Can Improve Mathematical Reasoning Learning of Language Models",
        "2403.02178",
        2024,
    ),
    published_lr=1e-5,
    idea="The model reads the solution with some tokens replaced, and must still predict all the right ones. "
    "It can no longer lean on the last few words and has to look back at the question. "
    "The share of replaced tokens grows from 0 over the first two thirds of training.",
    equation="L = - mean_t log pi(y_t | x, m(y_<t)), m replaces each token with probability p",
    departures=(
        "the mask token is the model's end token, as most models have no other",
        "with several passes over one batch, all see the same holes",
    ),
    stages={"credit": stage(with_holes), "objective": stage(cross_entropy_with_holes)},
    claim="On chains of arithmetic with few solutions, test accuracy is higher than SFT's at equal epochs and the training likelihood lower.",
    unchecked="a fixed share of the tokens is hidden at every step, whatever the policy does",
    examples=(
        ByHand("a third of the way up", lambda: masked_now(0.22, 0.4, 0.66), 0.4 / 3),
        ByHand("after the ramp", lambda: masked_now(0.9, 0.4, 0.66), 0.4),
        ByHand("p = 0 at the start", lambda: _read(0.0), [5, 6, 7]),
        ByHand("p = 1 at the ramp's end: end tokens alone", lambda: _read(0.5, ramp_share=0.5), [0, 0, 0]),
        OffPolicy(
            "every token is predicted, read or not: log pi = -1 + ln 2 and -1",
            ratio=(2.0, 1.0),
            advantage=(0.0, 0.0),
            weights={IMITATION: (1.0, 1.0)},
            extras={READ: (1.0, 0.0)},
            loss=((1 - math.log(2)) + 1) / 2,
            gradient=(-1 / 2, -1 / 2),
        ),
        Reduction("without holes it is SFT", "sft", {"credit.masked_share": 0.0}),
    ),
)
