"""Critique-GRPO: of the answers refined after a critique, one joins the group, under the bare question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.credit.attempts import distilled, on_parts, scores_of
from etude.credit.group import centred
from etude.models.outputs import Outputs
from etude.objective.attempts import weighted
from etude.objective.policy import Length
from etude.objective.terms import Objective, Term, TokenLoss, log_ratio, objective, per_constant
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import nth
from etude.rollout.second import Refine
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def chosen(refined: Sequence[float | None]) -> int | None:
    """The first of the best refinements; None where there is none."""
    known = [-1.0 if r is None else r for r in refined]
    best = int(np.argmax(known)) if known else 0
    return best if known and refined[best] is not None else None


def mixed_group(first: Sequence[float], refined: Sequence[float | None]) -> tuple[list[float], float | None]:
    """Advantages r - mean of the originals and of the chosen refinement, which takes the place of the last
    original; that one gets 0."""
    pick = chosen(refined)
    if pick is None:
        return centred(np.array(first)).tolist(), None
    *advantages, last = centred(np.array([*first[:-1], refined[pick]])).tolist()
    return [*advantages, 0.0], last


def with_extra(signals: Sequence[Signal], **rows: float) -> list[Signal]:
    """The signals with constant extra rows on the tokens that have any weight."""
    done = []
    for signal in signals:
        on: Array = sum((w != 0 for w in signal.weights.values()), np.zeros(len(signal.advantage), bool))
        extras = {n: np.where(on, v, 0).astype(np.float32) for n, v in rows.items()}
        done.append(replace(signal, extras={**signal.extras, **extras}))
    return done


def with_a_refinement():
    """`mixed_group`; the refinement behind the bare question. Extra `refined`: 1 on its tokens
    (Critique-GRPO, arXiv 2506.03106)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            first = [r or 0.0 for r in scores_of(group, "first")]
            refined = scores_of(group, "second")
            advantages, extra = mixed_group(first, refined)
            pick = chosen(refined)
            mine = [on_parts(e, {nth(1): a}) for e, a in zip(group.episodes, advantages, strict=True)]
            if pick is not None and extra is not None:
                last = mine[-1]  # replaced: it counts in no denominator
                mine[-1] = replace(last, weights={"policy": np.zeros_like(last.advantage)})
                signals += with_extra(distilled(group.episodes[pick], nth(2), "policy", extra), refined=1.0)
            signals += with_extra(mine, refined=0.0)
        return signals

    return credit


def shaped(p: Tensor, gamma: float) -> Tensor:
    """p / (p + gamma): its gradient lets rare tokens learn faster than p itself would."""
    return p / (p + gamma)


def clipless_and_shaped(
    length: Length = 64.0,
    gamma: Annotated[float, Setting("constant of f(p) = p / (p + gamma) on refinements", low=0.001)] = 0.1,
) -> Objective:
    """-A rho on originals, -A f(pi) on the refinement; summed over tokens, over a constant length
    (Critique-GRPO, arXiv 2506.03106)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        own = log_ratio(out, batch).exp()
        ratio = torch.where(batch.extras["refined"] > 0, shaped(out.logp.exp(), gamma), own)
        return weighted(ratio, batch.advantage)

    return objective(Term("policy", loss, per_constant(length), proportional=True))


RECIPE = Recipe(
    name="critique_grpo",
    n=147,
    paper=Paper(
        "Critique-GRPO: Advancing LLM Reasoning with Natural Language and Numerical Feedback",
        "2506.03106",
        2025,
    ),
    idea="Every answer is criticised and refined with the critique in view. "
    "The best refinement takes the place of one answer in the group, as if it had been given to the bare question. "
    "So groups in which every answer failed still have something to learn from, and rare words of the refinement learn fastest.",
    equation="A_i = r_i - mean r over n - 1 answers and one refinement;  L = - 1/(n L) sum A rho, and - A f(pi), f(p) = p / (p + 0.1), "
    "on the refinement",
    departures=(
        "the critique is the task's own feedback by default, which is the paper's simple critique (feedback=unary) or its variant with the "
        "gold answer (feedback=full); --set rollout.critic=teacher or remote has another model write it",
        "GUESS: the refinement takes the place of the last answer of the group",
        "no entropy bonus (0.001 in the paper); the divisor L is 64 tokens by default",
    ),
    stages={
        "rollout": stage(Refine, critic="feedback", always=True),
        "reward": stage(each_attempt),
        "credit": stage(with_a_refinement),
        "objective": stage(clipless_and_shaped),
    },
    claim="Where most groups are all wrong, more groups carry signal and accuracy exceeds Dr. GRPO's; feedback=full is no worse than unary.",
    examples=(
        ByHand(
            "four wrong, the second refinement right",
            lambda: mixed_group([0, 0, 0, 0], [0, 1, 0, 1])[0],
            [-0.25, -0.25, -0.25, 0],
        ),
        ByHand("the refinement itself", lambda: float(mixed_group([0, 0, 0, 0], [0, 1, 0, 1])[1] or 0), 0.75),
        ByHand("f(0.1), f(0.4)", lambda: shaped(torch.tensor([0.1, 0.4]), 0.1), [0.5, 0.8]),
        Reduction("without refinements: Dr. GRPO, on-policy", "dr_grpo", {"rollout.second": 0.0}),
    ),
)
