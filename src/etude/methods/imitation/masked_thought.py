"""Masked thought: supervised fine-tuning on solutions with holes in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from etude.batch import Batch
from etude.credit.imitate import shown
from etude.methods.imitation.sft import RECIPE as SFT
from etude.objective.imitation import cross_entropy
from etude.objective.policy import MeanOver
from etude.objective.terms import Objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Group, Signal


def ramp(progress: float, share: float, warmup: float) -> float:
    """Rises linearly from 0 to `share` over the first `warmup` of the run."""
    return share * min(1.0, progress / warmup) if warmup else share


def with_holes(
    share: Annotated[float, Setting("share of solution tokens that are replaced", low=0, high=1)] = 0.4,
    warmup: Annotated[float, Setting("share of the run over which it rises from 0", low=0, high=1)] = 0.66,
    random: Annotated[float, Setting("share replaced at random, not by the end token", low=0, high=1)] = 1.0,
):
    """Imitation of the demonstrations. Extras: `read`, the tokens that the model shall read, drawn anew at every
    step; what it shall say stays as it is (arXiv 2403.02178)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        tokenizer, p = context.policy.tokenizer, ramp(context.progress, share, warmup)
        signals = []
        for signal in shown(groups):
            tokens = signal.episode.tokens
            rng = context.rng("holes", signal.episode.task.key)
            hole = (rng.random(len(tokens)) < p) & (signal.weights["imitation"] > 0)
            noise = rng.integers(tokenizer.backend.get_vocab_size(), size=len(tokens))
            filling = np.where(rng.random(len(tokens)) < random, noise, tokenizer.stops[0])
            read = np.where(hole, filling, tokens).astype(np.float32)
            signals.append(replace(signal, extras={"read": read}))
        return signals

    return credit


def misread(batch: Batch) -> Tensor:
    """int64[N]: what the credit stage has drawn, so that no cut of the batch can change it."""
    return batch.extras["read"].long()


def cross_entropy_with_holes(mean: MeanOver = "token") -> Objective:
    return replace(cross_entropy(mean), corrupt=misread)


RECIPE = Recipe(
    name="masked_thought",
    base=SFT,
    n=127,
    paper=Paper(
        "Masked Thought: Simply Masking Partial Reasoning Steps Can Improve Mathematical Reasoning Learning of Language Models",
        "2403.02178",
        2024,
    ),
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
    examples=(
        ByHand("a third of the way up", lambda: ramp(0.22, 0.4, 0.66), 0.4 / 3),
        ByHand("after the warm-up", lambda: ramp(0.9, 0.4, 0.66), 0.4),
        Reduction("without holes it is SFT", "sft", {"credit.share": 0.0}),
    ),
)
