"""Entropy-SFT: fine-tune on the tokens whose loss is more than the model's own uncertainty."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.imitate import demonstrations
from etude.recipe import ByHand, Recipe, Reduction
from etude.recipes.base.sft import RECIPE as SFT
from etude.recipes.objective.tea_rl import RECIPE as TEA_RL
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def surprising(
    share: Annotated[float, Setting("share of solution tokens that are trained on", low=0, high=1)] = 0.8,
    factor: Annotated[float, Setting("c: how much entropy excuses a token's loss", low=0)] = 0.8,
):
    """Imitation of the tokens whose cross-entropy most exceeds `factor` times the policy's entropy there."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = demonstrations()(groups, context)
        deltas = context.rows(signals, lambda out: -out.logp - factor * out.entropy, {"entropy"})
        shown = [s.weights["imitation"] > 0 for s in signals]
        kept = largest([d[m] for d, m in zip(deltas, shown, strict=True)], share)
        rows = [np.zeros(len(m), np.float32) for m in shown]
        for row, mask, keep in zip(rows, shown, kept, strict=True):
            row[mask] = keep
        return [replace(s, weights={"imitation": row}) for s, row in zip(signals, rows, strict=True)]

    return credit


def largest(values: Sequence[Array], share: float) -> list[Array]:
    """Which entries, over all arrays, are among the `share` of largest ones; of ties, the first."""
    flat = np.concatenate(values) if values else np.zeros(0)
    keep = np.zeros(len(flat), bool)
    keep[np.argsort(-flat, kind="stable")[: round(share * len(flat))]] = True
    return np.split(keep, np.cumsum([len(v) for v in values])[:-1])


RECIPE = Recipe(
    name="entropy_sft",
    base=SFT,
    family="objective",
    n=186,
    paper=TEA_RL.paper,
    idea="Fine-tuning need not make the model surer of what it already says. "
    "Only tokens are trained whose loss is large compared with the model's own uncertainty there. "
    "The surest fifth is left alone, which leaves entropy for the RL that follows.",
    equation="L = mean of CE_t over the share q of tokens with the largest CE_t - c H_t",
    departures=("tokens are chosen over the whole step, once, before its first update",),
    stages={"credit": stage(surprising)},
    claim="The policy's entropy stays higher than after SFT at equal training accuracy.",
    examples=(
        ByHand(
            "half of four, over two answers",
            lambda: np.concatenate(largest([np.array([3.0, 1]), np.array([2.0, 0])], 0.5)),
            [1, 0, 1, 0],
        ),
        Reduction("with all tokens it is SFT", "sft", {"credit.share": 1.0}),
    ),
)
