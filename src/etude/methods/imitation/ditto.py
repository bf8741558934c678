"""DITTO (arXiv 2206.02369): models repeat sentences because each repetition makes the next one likelier. Half of the
steps therefore train on made-up loops, in which every copy of a sentence is to be `lambda` times as probable as the copy
before; the other half are ordinary fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION, shown
from etude.fixtures.given import GivenContext, beyond_prompt, example_demonstration, given_stage
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.imitation import cross_entropy
from etude.objective.terms import Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Group, Signal, Span

LOOP = "loop"  # weight row: the copies of a sentence but the first
FIRST = "first"  # weight row that no term reads: it makes the log-probabilities of the first copy known
PERIOD = (
    "period"  # extra: tokens from a token of a copy back to the same token of the copy before; 0 elsewhere
)


def sentences(tokens: Array, ends: Sequence[bool | int]) -> list[Array]:
    """The tokens cut after each one that `ends` a sentence."""
    cuts = [i + 1 for i, end in enumerate(ends) if end and i + 1 < len(tokens)]
    return [part for part in np.split(tokens, cuts) if len(part)]


def looped(signal: Signal, before: Array, again: Array, length: int) -> Signal:
    """The prompt, the sentence `before`, then copies of `again` up to `length` tokens."""
    *prompt, _ = signal.episode.spans
    copies = np.resize(again, max(length - len(before), 2 * len(again)))
    spans = (*prompt, Span("assistant", before, tag="prefix"), Span("assistant", copies, tag="loop"))
    start = sum(len(s) for s in spans) - len(copies)
    place = np.arange(start + len(copies)) - start
    later = place >= len(again)
    rows = {LOOP: later, FIRST: (place >= 0) & ~later}
    return Signal(
        replace(signal.episode, spans=spans),
        np.zeros(len(place), np.float32),
        {name: row.astype(np.float32) for name, row in rows.items()},
        {PERIOD: np.where(later, len(again), 0).astype(np.float32)},
    )


@writes(IMITATION, LOOP, FIRST, extras=(PERIOD,))
def loops(
    loop_share: Annotated[float, Setting("share of steps that train on loops", low=0, high=1)] = 0.5,
    loop_length: Annotated[int, Setting("length of a loop with its prefix", "tokens", low=2)] = 256,
    ends: Annotated[str, Setting("characters that end a sentence")] = ".!?\n",
) -> Credit:
    """At each step, by the toss of a coin, imitation of the demonstrations, or of each a loop of one of its sentences.
    A demonstration of fewer than three sentences is imitated in any case."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        toss, decode = context.rng("ditto").random() < loop_share, context.policy.tokenizer.decode
        signals = []
        for signal in shown(groups):
            words = signal.episode.spans[-1].tokens[:-1]
            parts = sentences(words, [decode([t]).rstrip(" ")[-1:] in tuple(ends) for t in words])
            if toss and len(parts) >= 3:
                k = context.rng("ditto", signal.episode.task.key).integers(1, len(parts))
                signals.append(looped(signal, parts[k - 1], parts[k], loop_length))
            else:
                signals.append(replace(signal, extras={PERIOD: np.zeros_like(signal.advantage)}))
        return signals

    return credit


def unlearn_loops(
    repeat_decay: Annotated[
        float, Setting("lambda: what a copy may keep of the copy before", low=0, high=1)
    ] = 0.5,
    one_sided: Annotated[bool, Setting("punish only what exceeds the target")] = False,
) -> Objective:
    """Cross-entropy on demonstrations; on loops -log(1 - |P_{n,t} - lambda sg[P_{n-1,t}]|), both token means."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        p = out.logp.exp()  # P_n,t
        before = p.detach()[torch.arange(len(p), device=p.device) - batch.extras[PERIOD].long()]  # P_n-1,t
        gap = p - repeat_decay * before
        gap = gap.clamp(min=0) if one_sided else gap.abs()
        return -(1 - gap).clamp(min=1e-20).log(), {"repeat_probability": p}

    return cross_entropy() + objective(Term("loop", loss, weight=LOOP), extras={PERIOD}, silent={FIRST})


def _loop() -> list[list[float]]:
    """Rows of a loop of 7 tokens made of a solution of three sentences: one sentence, and then 2 1/2 copies."""
    group = Group(EXAMPLE.task, (), demonstrations=(EXAMPLE,))
    signals = given_stage(RECIPE, "credit", loop_share=1.0, loop_length=7)([group], GivenContext())
    return [beyond_prompt(signals, name) for name in (FIRST, LOOP, PERIOD)]


EXAMPLE = example_demonstration("a.b.c.")
RECIPE = Recipe(
    name="ditto",
    base=SFT,
    paper=Paper(
        "Learning to Break the Loop: Analyzing and Mitigating Repetitions for Neural Text Generation",
        "2206.02369",
        2022,
    ),
    idea="A sentence said once is likelier the second time, and the more so the more often it was said. "
    "Half of the steps therefore train on made-up loops: each copy of a sentence shall be half as probable as the copy before. "
    "The other half are ordinary fine-tuning.",
    equation="L = - mean_t log(1 - |P_{n,t} - lambda sg[P_{n-1,t}]|) over the copies n >= 2 of a sentence",
    departures=("sentences come from the tasks' own solutions, after their prompt, instead of running text",),
    stages={"credit": stage(loops), "objective": stage(unlearn_loops)},
    needs=("text",),
    claim="Greedy decoding falls into loops far less often while the perplexity hardly changes.",
    manipulation=(
        Manipulated(
            "repeated tokens are likely before they are punished", "repeat_probability", 0.1, read="max"
        ),
    ),
    examples=(
        ByHand(
            "a loop of copies of two tokens",
            _loop,
            [[0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 2, 2, 2]],
        ),
        # P = 0.4, 0.2 in the first copy, 0.3, 0.05 in the second: gaps 0.3 - 0.2 and 0.05 - 0.1.
        OffPolicy(
            "a copy too probable and too rare by lambda = 1/2, and a demonstration",
            ratio=tuple(math.e * p for p in (0.4, 0.2, 0.3, 0.05, 0.5, 0.5)),
            advantage=(0.0,) * 6,
            lengths=(4, 2),
            weights={
                FIRST: (1, 1, 0, 0, 0, 0),
                LOOP: (0, 0, 1, 1, 0, 0),
                IMITATION: (0, 0, 0, 0, 1, 1),
            },
            extras={PERIOD: (0, 0, 2, 2, 0, 0)},
            loss=(-math.log(1 - 0.1) - math.log(1 - 0.05)) / 2 + math.log(2),
            gradient=(0, 0, 0.3 / 0.9 / 2, -0.05 / 0.95 / 2, -1 / 2, -1 / 2),
        ),
        OffPolicy(
            "one-sided, what is too rare is left alone; lambda = 0 is unlikelihood",
            ratio=tuple(math.e * p for p in (0.4, 0.75)),
            advantage=(0.0,) * 2,
            weights={FIRST: (1, 0), LOOP: (0, 1)},
            extras={PERIOD: (0, 1)},
            loss=2 * math.log(2),
            gradient=(0, 0.75 / 0.25),
            settings={"objective.repeat_decay": 0.0, "objective.one_sided": True},
        ),
        OffPolicy(
            "one-sided: 0.05 after 0.2",
            ratio=tuple(math.e * p for p in (0.2, 0.05)),
            advantage=(0.0,) * 2,
            weights={FIRST: (1, 0), LOOP: (0, 1)},
            extras={PERIOD: (0, 1)},
            loss=0.0,
            gradient=(0, 0),
            settings={"objective.one_sided": True},
        ),
        Reduction("without loops it is SFT", "sft", {"credit.loop_share": 0.0}),
    ),
)
