"""Critique-GRPO: of the answers refined after a critique, one joins the group, under the bare question.

Every answer is criticised and refined with the critique in view. The best refinement takes a place in the group of
answers as if it had been given to the bare question, with a loss that lets its rare tokens learn fastest: a group in
which every answer failed still has something to learn from. Critique-GRPO, arXiv 2506.03106."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from etude.batch import Batch
from etude.channels import writes
from etude.credit.attempts import distilled, on_parts, scores_of
from etude.credit.group import centred
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.models.outputs import Outputs
from etude.objective.policy import Length
from etude.objective.terms import Objective, Term, TokenLoss, log_ratio, objective, per_constant
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import FIRST, SECOND, each_attempt
from etude.rollout.attempts import attempt_tag
from etude.rollout.second import Refine
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Group, Signal

REFINED = "refined"
"""Extra: 1 on the tokens of a refinement, 0 on those of first answers."""


def best_refinement(rewards: Sequence[float | None]) -> int | None:
    """The first of the best refinements; None where nothing was refined (every reward is None)."""
    known = [-1.0 if r is None else r for r in rewards]
    best = int(np.argmax(known)) if known else 0
    return best if known and rewards[best] is not None else None


def _marked(signal: Signal, refined: float) -> Signal:
    """With the extra `REFINED` on the tokens that have any weight."""
    on: Array = sum((w != 0 for w in signal.weights.values()), np.zeros(len(signal.advantage), bool))
    return replace(signal, extras={**signal.extras, REFINED: np.where(on, refined, 0).astype(np.float32)})


@writes("policy", extras=(REFINED,))
def with_a_refinement() -> Credit:
    """A = r - mean(r) over the n - 1 first answers and the best refinement, which takes the place of the last answer
    and stands behind the bare question. Without refinements, over the n first answers."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            first = [r or 0.0 for r in scores_of(group, FIRST)]
            refined = scores_of(group, SECOND)
            pick = best_refinement(refined)
            rewards = first if pick is None else [*first[:-1], refined[pick] or 0.0]
            advantages = centred(np.array(rewards)).tolist()
            mine = [on_parts(e, {attempt_tag(1): a}) for e, a in zip(group.episodes, advantages, strict=True)]
            if pick is not None:  # the replaced answer is not trained and counts in no denominator
                nothing = np.zeros_like(mine[-1].advantage)
                mine[-1] = replace(mine[-1], advantage=nothing, weights={"policy": nothing})
                joins = distilled(group.episodes[pick], attempt_tag(2), "policy", advantages[-1])
                signals += [_marked(s, 1.0) for s in joins]
            signals += [_marked(s, 0.0) for s in mine]
        return signals

    return credit


def clipless_and_shaped(
    length_divisor: Length = 64.0,
    shaping_gamma: Annotated[
        float, Setting("gamma of f(p) = p / (p + gamma) on refinements", low=0.001)
    ] = 0.1,
) -> Objective:
    """-A rho on first answers and -A f(pi) on the refinement, f(p) = p / (p + gamma), whose gradient lets rare tokens
    learn faster than p itself would; summed over tokens and divided by a constant length."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        p = out.logp.exp()
        own = log_ratio(out, batch).exp()
        ratio = torch.where(batch.extras[REFINED] > 0, p / (p + shaping_gamma), own)
        return -batch.advantage * ratio

    mean = per_constant(length_divisor)
    return objective(Term("policy", loss, mean, proportional=True), extras={REFINED})


def _credited(*tries: Sequence[float]) -> list[Signal]:
    """Credit of one group: the rewards of each answer and, where there is one, of its refinement."""
    return credited_signals(RECIPE, [example_attempts(*rewards) for rewards in tries])


RESCUED = ((0.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.0, 1.0))

RECIPE = Recipe(
    name="critique_grpo",
    paper=Paper(
        "Critique-GRPO: Advancing LLM Reasoning with Natural Language and Numerical Feedback",
        "2506.03106",
        2025,
    ),
    published_lr=1e-6,
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
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "four wrong, the second refinement right: 0 - 1/4 for the three that stay",
            lambda: advantages_of(_credited(*RESCUED), attempt_tag(1)),
            [-0.25, -0.25, -0.25],
        ),
        ByHand(
            "the refinement itself: 1 - 1/4",
            lambda: advantages_of(_credited(*RESCUED), attempt_tag(2)),
            [0.75],
        ),
        ByHand(
            "the first of the best is taken; the first answer of no refinement",
            lambda: [
                -1.0 if (best := best_refinement(r)) is None else best
                for r in ([0, 1, None, 1], [None, 0], [None])
            ],
            [1, 1, -1],
        ),
        ByHand(
            "nothing refined: right and wrong against their mean",
            lambda: advantages_of(_credited((1.0,), (0.0,)), attempt_tag(1)),
            [0.5, -0.5],
        ),
        OffPolicy(
            "no clip: ratios 3 and 0.2 of both signs; f at p = exp(-1) and 0.1: gradient A p g / (p + g)^2",
            ratio=(3.0, 0.2, 3.0, 1.0, 0.1 * math.e),
            advantage=(0.5, 0.5, -0.5, 0.75, 0.75),
            lengths=(2, 1, 2),
            extras={REFINED: (0, 0, 0, 1, 1)},
            settings={"objective.length_divisor": 8.0},
            loss=(-1.5 - 0.1 + 1.5 - 0.75 / (1 + 0.1 * math.e) - 0.75 * 0.5) / (3 * 8),
            gradient=[
                x / 24
                for x in (
                    -1.5,
                    -0.1,
                    1.5,
                    -0.75 * 0.1 * math.exp(-1) / (math.exp(-1) + 0.1) ** 2,
                    -0.75 * 0.25,
                )
            ],
        ),
        Reduction("without refinements: Dr. GRPO, on-policy", "dr_grpo", {"rollout.second": 0.0}),
    ),
)
