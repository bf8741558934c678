"""SCoRe: learning to correct oneself, in two stages and with a bonus for progress.

The model answers (y_1) and, without hearing whether it was right, is asked to look again (y_2). Stage I rewards y_2 only
and holds y_1 near the start by a strong KL, so that the two come apart; stage II rewards both, with a bonus
alpha (r_2 - r_1) for progress. Training Language Models to Self-Correct via Reinforcement Learning, arXiv 2409.12917."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.batch import Batch
from etude.channels import writes
from etude.credit.attempts import compared, on_parts, scores_of
from etude.credit.imitate import tagged
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts, weights_of
from etude.models.outputs import Outputs
from etude.objective.policy import KLWeight, MeanOver, plain
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, k3, objective
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import FIRST, SECOND, each_attempt
from etude.rollout.attempts import attempt_tag
from etude.rollout.second import reconsider
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

KL = "kl"
"""Weight row: the weight of the KL to the start on each token."""


@writes("policy", KL)
def two_stages(
    first_stage: Annotated[
        float, Setting("share of the run in which only the second attempt is rewarded", low=0, high=1)
    ] = 0.5,
    progress_bonus: Annotated[
        float, Setting("alpha: bonus for progress from the first to the second attempt", low=0)
    ] = 10.0,
    kl_weight: KLWeight = 0.01,
    first_kl_weight: Annotated[
        float, Setting("beta_2: added to it on first attempts in the first stage", "nats", low=0)
    ] = 0.1,
    centre: Annotated[bool, Setting("subtract the group's mean from each attempt's reward")] = True,
) -> Credit:
    """Stage I: r_2 for y_2, no reward for y_1, KL weights beta_1 + beta_2 on y_1 and beta_1 (`kl_weight`) on y_2.
    Stage II: r_1 for y_1, r_2 + alpha (r_2 - r_1) for y_2, KL weight beta_1 on both. No attempt is credited with the
    reward of the other."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        early = context.progress < first_stage
        beta_first = kl_weight + first_kl_weight * early
        signals = []
        for group in groups:
            r1 = [r or 0.0 for r in scores_of(group, FIRST)]
            r2 = scores_of(group, SECOND)
            if not early:
                pairs = zip(r1, r2, strict=True)
                r2 = [None if b is None else b + progress_bonus * (b - a) for a, b in pairs]
            first, second = ((compared(r) if centre else [x or 0.0 for x in r]) for r in (r1, r2))
            for i, episode in enumerate(group.episodes):
                y1, y2 = attempt_tag(1), attempt_tag(2)
                signal = on_parts(episode, {y2: second[i]} if early else {y1: first[i], y2: second[i]})
                kl = beta_first * tagged(episode, y1) + kl_weight * tagged(episode, y2)
                signals.append(replace(signal, weights={**signal.weights, KL: kl.astype(np.float32)}))
        return signals

    return credit


def reinforce_near_start(mean: MeanOver = "sum") -> Objective:
    """-A log pi, plus beta_t 1/2 (log pi - log pi_ref)^2 with the weight beta_t that credit gave each token (row `KL`).
    Its gradient, (log pi - log pi_ref) grad log pi, is in expectation over the token that of KL(pi || pi_ref), which the
    paper penalises; that of k3, (1 - pi_ref / pi) grad log pi, is that of KL(pi_ref || pi)."""

    def kl_to_start(out: Outputs, batch: Batch) -> TokenLoss:
        start = batch.extras["reference"]
        return 0.5 * (out.logp - start) ** 2, {"kl_reference": k3(out.logp, start)}

    return plain(mean) + objective(Term("kl", kl_to_start, MEANS[mean], weight=KL), reads={"reference"})


def _three(progress: float, **settings: bool) -> list[Signal]:
    """Credit of three episodes, in a run that has come so far: mended, spoilt, right twice."""
    tries = ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
    changes = {f"credit.{k}": v for k, v in settings.items()}
    return credited_signals(
        RECIPE, [example_attempts(*r) for r in tries], settings=changes, progress=progress
    )


RECIPE = Recipe(
    name="score",
    paper=Paper("Training Language Models to Self-Correct via Reinforcement Learning", "2409.12917", 2024),
    published_lr=5e-6,
    idea="The model answers and, without hearing whether it was right, is asked to look again. "
    "At first only the second answer is rewarded while the first is held where it began, so that the two come apart. "
    "Then both are rewarded, with a large bonus for mending and a large loss for spoiling.",
    equation="I: max E[r_2] - beta_2 KL_1 - beta_1 sum KL;  II: max E[r_1 + r_2 + alpha (r_2 - r_1)] - beta_1 sum_i KL(pi(.|x_i) || pi_ref)",
    departures=(
        "GUESS: the baseline is the group's mean for each attempt (--set credit.centre=false takes none)",
        "the stages divide one run by its progress, half and half, where the paper trains 3000 steps in all and does not say the share",
        "all first attempts come from the policy; the paper takes some from the base model",
    ),
    confidence="memory",
    stages={
        "rollout": stage(reconsider),
        "reward": stage(each_attempt),
        "credit": stage(two_stages),
        "objective": stage(reinforce_near_start),
    },
    claim="Accuracy rises from the first to the second attempt with both stages and the bonus, and stays about the same without.",
    manipulation=(Manipulated("a tenth of first attempts are wrong", "attempts/first", at_most=0.9),),
    examples=(
        ByHand(
            "stage II without a baseline: 1 + 10 (1 - 0), 0 + 10 (0 - 1), 1 + 0",
            lambda: advantages_of(_three(0.5, centre=False), attempt_tag(2)),
            [11, -10, 1],
        ),
        ByHand(
            "stage II: the same minus their mean 2/3",
            lambda: advantages_of(_three(0.5), attempt_tag(2)),
            [11 - 2 / 3, -10 - 2 / 3, 1 / 3],
        ),
        ByHand(
            "stage II: first attempts 0, 1, 1 minus 2/3",
            lambda: advantages_of(_three(0.5), attempt_tag(1)),
            [-2 / 3, 1 / 3, 1 / 3],
        ),
        ByHand(
            "stage I: second attempts 1, 0, 1 minus 2/3",
            lambda: advantages_of(_three(0.49), attempt_tag(2)),
            [1 / 3, -2 / 3, 1 / 3],
        ),
        ByHand("stage I: no first attempt", lambda: len(advantages_of(_three(0.49), attempt_tag(1))), 0),
        ByHand(
            "weights of the KL: attempts 1 and 2 in stage I, then in stage II",
            lambda: [weights_of(_three(p), attempt_tag(k), KL)[0] for p in (0.0, 1.0) for k in (1, 2)],
            [0.11, 0.01, 0.01, 0.01],
        ),
        OffPolicy(
            "no ratio: -A log pi, at exp(-1) / 2 and 2 exp(-1); KL of weights 0.11 and 0.01 to a start twice and half as "
            "likely: (log 2)^2 / 2 both times, gradients -log 2 and log 2, where those of k3 are -1 and 1/2",
            ratio=(0.5, 2.0),
            advantage=(0.5, -0.25),
            lengths=(1, 1),
            weights={"policy": (1, 1), KL: (0.11, 0.01)},
            extras={"reference": (-1.0, -1.0)},
            loss=(0.5 * (1 + math.log(2)) - 0.25 * (1 - math.log(2)) + 0.12 * math.log(2) ** 2 / 2) / 2,
            gradient=((-0.5 - 0.11 * math.log(2)) / 2, (0.25 + 0.01 * math.log(2)) / 2),
        ),
        Reduction(
            "no second attempt and no KL: REINFORCE",
            "reinforce",
            {"rollout.second": 0.0, "credit.first_stage": 0.0, "credit.kl_weight": 0.0},
        ),
    ),
)
