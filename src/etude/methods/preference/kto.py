"""KTO: answers that are liked or disliked, without pairs.

People feel losses more than gains, and against what they expect. KTO values an answer by how much likelier the policy makes it
than the reference does, measured from the policy's mean divergence from it, through a function that saturates both ways. Model
Alignment as Prospect Theoretic Optimization, arXiv 2402.01306, equations 7 and 8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.pairs import answer_of, given_pairs, preferred
from etude.fixtures.given import GivenContext, GivenModel, example_answers, given_stage
from etude.methods.preference.dpo import RECIPE as DPO
from etude.models.outputs import Outputs
from etude.objective.preference import DpoBeta, implicit_rewards
from etude.objective.terms import Objective, Term, TokenLoss, objective, segment_sum, spread, sum_per_episode
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

BASELINE = "baseline"
"""Extra: z_0, the mean divergence from the reference, from which gains and losses are measured; the same on all tokens."""


# ---- credit ------------------------------------------------------------------------------------------


def mismatched(signals: Sequence[Signal]) -> list[Signal]:
    """Each answer behind the prompt of the next signal: what the policy says of texts that are about something else."""
    found = []
    for one, other in zip(signals, [*signals[1:], *signals[:1]], strict=True):
        first = next(
            i for i, s in enumerate(other.episode.spans) if s.sampled or s.tag in ("chosen", "rejected")
        )
        asked = tuple(s for s in other.episode.spans[:first] if not s.unseen)
        mine = one.episode.spans
        begin = next(i for i, s in enumerate(mine) if s.sampled or s.tag in ("chosen", "rejected"))
        spans = (*asked, *(replace(s, restart=False) for s in mine[begin:]))
        size, tail = sum(map(len, spans)), answer_of(one.episode)[sum(map(len, mine[:begin])) :]
        mask = np.zeros(size, np.float32)
        mask[size - len(tail) :] = tail
        found.append(
            Signal(replace(one.episode, task=other.episode.task, spans=spans), 0 * mask, {"policy": mask})
        )
    return found


def divergence(signals: Sequence[Signal], context: Context) -> float:
    """z_0 = max(0, mean over mismatched answers of log pi(y'|x) - log pi_ref(y'|x))."""
    if not signals:
        return 0.0
    other = mismatched(signals)
    own, start = (
        context.rows(other, lambda out: out.logp, policy=model)
        for model in (None, context.auxiliary["reference"])
    )
    gaps = [float(((p - r) * s.weights["policy"]).sum()) for p, r, s in zip(own, start, other, strict=True)]
    return max(0.0, sum(gaps) / len(gaps))


@writes("policy", extras=(BASELINE,))
def liked_or_not(
    liked_above: Annotated[
        float, Setting("reward above which an attempt is liked", low=-1e6, high=1e6)
    ] = 0.5,
) -> Credit:
    """+1 on the tokens of a liked answer, -1 on those of another: given sides, or attempts by their reward."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            tried = [preferred(e, 1.0 if e.reward > liked_above else -1.0) for e in group.episodes]
            signals += [replace(s, extras={}) for s in (*given_pairs(group), *tried)]
        z = np.float32(divergence(signals, context))
        return [replace(s, extras={BASELINE: np.full(len(s.advantage), z, np.float32)}) for s in signals]

    return credit


# ---- loss --------------------------------------------------------------------------------------------

Weight = Annotated[float, Setting("lambda_D: weight of liked answers", low=0)]


def prospect(
    dpo_beta: DpoBeta = 0.1,
    liked_weight: Weight = 1.0,
    disliked_weight: Annotated[float, Setting("lambda_U: weight of disliked answers", low=0)] = 1.0,
) -> Objective:
    """lambda_D (1 - sigmoid(beta (d - z_0))) of a liked answer, lambda_U (1 - sigmoid(beta (z_0 - d))) of a disliked one;
    d = log pi(y) - log pi_ref(y). A mean over answers; no gradient through z_0."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        d = implicit_rewards(out, batch)
        on = batch.weight("policy") != 0
        sign = segment_sum(batch.advantage, batch.episode).sign()
        size = segment_sum(on.to(d), batch.episode).clamp(min=1)
        z = segment_sum(torch.where(on, batch.extras[BASELINE], 0.0).to(d), batch.episode) / size
        value = _value(d, z, sign, dpo_beta)
        weight = torch.where(sign > 0, liked_weight, disliked_weight).to(d)
        return spread(weight * (1 - value), batch.episode, on), {"value": value[batch.episode]}

    return objective(Term("preference", loss, sum_per_episode), reads={"reference"}, extras={BASELINE})


def _value(d: Tensor, z: Tensor, sign: Tensor, beta: float) -> Tensor:
    return torch.sigmoid(beta * sign * (d - z))


# ---- the recipe --------------------------------------------------------------------------------------


def credited(policy: float, reference: float) -> list[list[float]]:
    """Advantage and baseline at the answer's token of attempts with rewards 1 and 0, where both models give every token
    these log-probabilities."""
    context = GivenContext(GivenModel(policy), {"reference": GivenModel(reference)})
    signals = given_stage(RECIPE, "credit")([example_answers((1.0, (5,)), (0.0, (6, 7)))], context)
    return [[float(s.advantage[-1]), float(s.extras[BASELINE][-1])] for s in signals]


S1 = 1 / (1 + math.exp(-0.5 * (math.log(6) - 0.25)))  # liked: beta 0.5, d = log 6, z = 1/4
S2 = 1 / (1 + math.exp(0.5 * (-math.log(4) - 0.25)))  # disliked: d = -log 4

RECIPE: Recipe = Recipe(
    name="kto",
    base=DPO,
    paper=Paper("KTO: Model Alignment as Prospect Theoretic Optimization", "2402.01306", 2024),
    published_lr=5e-7,
    idea="Answers need no partner: each is liked or not. "
    "A liked answer shall become likelier than in the starting model, a disliked one less likely, measured from how far the model "
    "has moved on average. Both saturate, so that an answer that is already clear, or hopeless, teaches little.",
    equation="L = mean lambda_y (1 - sigmoid(s_y beta (log pi(y)/ref(y) - z_0))),  z_0 = max(0, mean log pi(y')/ref(y') of mismatched y')",
    departures=(
        "z_0 is that of the weights that the step begins with, over all answers of the step",
        "where the tasks bring no answers, attempts are liked by their reward (credit.liked_above)",
    ),
    stages={"credit": stage(liked_or_not), "objective": stage(prospect)},
    claim="With one label an answer and four fifths of them dislikes, preference accuracy is that of DPO on the whole pairs.",
    manipulation=(Manipulated("answers are told apart", "value", 0.5, read="last"),),
    examples=(
        ByHand(
            "three tokens of two answers, each half a nat likelier than in the reference: z = (0.5 + 1) / 2",
            lambda: credited(-1.0, -1.5),
            [[1, 0.75], [-1, 0.75]],
        ),
        ByHand("less likely: z is no less than 0", lambda: credited(-1.5, -1.0), [[1, 0], [-1, 0]]),
        OffPolicy(
            "liked with d = log 6, disliked with d = -log 4, z = 1/4, beta 0.5, lambda 1 and 2",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), BASELINE: (0.25,) * 3},
            settings={"objective.dpo_beta": 0.5, "objective.disliked_weight": 2.0},
            loss=((1 - S1) + 2 * (1 - S2)) / 2,
            gradient=(-0.5 * S1 * (1 - S1) / 2, -0.5 * S1 * (1 - S1) / 2, 2 * 0.5 * S2 * (1 - S2) / 2),
        ),
    ),
)
