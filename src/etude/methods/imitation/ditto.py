"""DITTO: learn from made-up loops not to repeat oneself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.credit.imitate import shown
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.imitation import cross_entropy
from etude.objective.terms import Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal, Span


def sentences(tokens: Array, ends: Sequence[bool | int]) -> list[Array]:
    """The tokens cut after each one that `ends` a sentence."""
    cuts = [i + 1 for i, end in enumerate(ends) if end and i + 1 < len(tokens)]
    return [part for part in np.split(tokens, cuts) if len(part)]


def looped(signal: Signal, before: Array, again: Array, length: int) -> Signal:
    """The prompt, the sentence `before`, then copies of `again` up to `length` tokens. Weights: `loop` on all
    copies but the first; `first` makes the first one's log-probabilities known. Extras: `period`."""
    *prompt, _ = signal.episode.spans
    copies = np.resize(again, max(length - len(before), 2 * len(again)))
    spans = (*prompt, Span("assistant", before, tag="prefix"), Span("assistant", copies, tag="loop"))
    start = sum(len(s) for s in spans) - len(copies)
    place = np.arange(start + len(copies)) - start
    later = place >= len(again)
    rows = {"loop": later, "first": (place >= 0) & ~later}
    return Signal(
        replace(signal.episode, spans=spans),
        np.zeros(len(place), np.float32),
        {name: row.astype(np.float32) for name, row in rows.items()},
        {"period": np.where(later, len(again), 0).astype(np.float32)},
    )


def loops(
    share: Annotated[float, Setting("share of steps that train on loops", low=0, high=1)] = 0.5,
    length: Annotated[int, Setting("length of a loop with its prefix", "tokens", low=2)] = 256,
    ends: Annotated[str, Setting("characters that end a sentence")] = ".!?\n",
):
    """At each step, by the toss of a coin, imitation of the demonstrations, or of each a loop of one of its sentences.
    A demonstration of fewer than three sentences is imitated in any case (DITTO, arXiv 2206.02369)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        toss, decode = context.rng("ditto").random() < share, context.policy.tokenizer.decode
        signals = []
        for signal in shown(groups):
            words = signal.episode.spans[-1].tokens[:-1]
            parts = sentences(words, [decode([t]).rstrip(" ")[-1:] in tuple(ends) for t in words])
            if toss and len(parts) >= 3:
                k = context.rng("ditto", signal.episode.task.key).integers(1, len(parts))
                signals.append(looped(signal, parts[k - 1], parts[k], length))
            else:
                signals.append(replace(signal, extras={"period": np.zeros_like(signal.advantage)}))
        return signals

    return credit


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


P = torch.tensor([0.2, 0.4, 0.75])
RECIPE = Recipe(
    name="ditto",
    base=SFT,
    n=114,
    paper=Paper(
        "Learning to Break the Loop: Analyzing and Mitigating Repetitions for Neural Text Generation",
        "2206.02369",
        2022,
    ),
    idea="A sentence said once is likelier the second time, and the more so the more often it was said. "
    "Half of the steps therefore train on made-up loops: each copy of a sentence shall be half as probable as the copy before. "
    "The other half are ordinary fine-tuning.",
    equation="L = - mean_t log(1 - |P_n,t - lambda sg[P_n-1,t]|) over the copies n >= 2 of a sentence",
    departures=("sentences come from the tasks' own solutions, after their prompt, instead of running text",),
    stages={"credit": stage(loops), "objective": stage(unlearn_loops)},
    needs=("text",),
    claim="Greedy decoding falls into loops far less often while the perplexity hardly changes.",
    examples=(
        ByHand("0.2 after 0.4 is on target", lambda: repetition(P[0], P[1], 0.5), 0.0),
        ByHand("lambda = 0 is unlikelihood", lambda: repetition(P[2], P[1], 0.0), 2 * np.log(2)),
        ByHand("too rare counts as too often", lambda: repetition(P[0], P[2], 0.8), -np.log(0.6)),
        ByHand("one-sided it does not", lambda: repetition(P[0], P[2], 0.8, one_sided=True), 0.0),
        Reduction("without loops it is SFT", "sft", {"credit.share": 0.0}),
    ),
)
