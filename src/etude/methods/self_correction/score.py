"""SCoRe: learning to correct oneself, in two stages and with a bonus for progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.batch import Batch
from etude.credit.attempts import compared, on_parts, scores_of
from etude.credit.imitate import tagged
from etude.models.outputs import Outputs
from etude.objective.policy import MeanOver, plain
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, k3, objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import nth
from etude.rollout.second import reconsider
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal


def kl_row(episode: Episode, first: float, others: float) -> Array:
    """f32[T]: the weight of the KL on each token of attempt 1, and on those of attempt 2."""
    return (first * tagged(episode, nth(1)) + others * tagged(episode, nth(2))).astype(np.float32)


def progress_bonus(first: float, second: float, alpha: float) -> float:
    """r2 + alpha (r2 - r1): a second attempt is worth more where it mends, less where it spoils (SCoRe)."""
    return second + alpha * (second - first)


def two_stages(
    first_stage: Annotated[
        float, Setting("share of the run in which only the second attempt is rewarded", low=0, high=1)
    ] = 0.5,
    alpha: Annotated[float, Setting("bonus for progress from the first to the second attempt", low=0)] = 10.0,
    beta1: Annotated[
        float, Setting("weight of the KL to the start, everywhere and always", "nats", low=0)
    ] = 0.01,
    beta2: Annotated[
        float, Setting("weight added to it on first attempts in the first stage", "nats", low=0)
    ] = 0.1,
    baseline: Annotated[bool, Setting("subtract the group's mean from each attempt's reward")] = True,
):
    """Stage I: r_2 for the second attempt, a strong KL (and no reward) for the first. Stage II: r_1 for the first,
    r_2 + alpha (r_2 - r_1) for the second. No attempt is credited with the reward of the other
    (SCoRe, arXiv 2409.12917)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        early = context.progress < first_stage
        signals = []
        for group in groups:
            first = [r or 0.0 for r in scores_of(group, "first")]
            second = scores_of(group, "second")
            if not early:
                second = [
                    None if b is None else progress_bonus(a, b, alpha)
                    for a, b in zip(first, second, strict=True)
                ]
            a, b = ((compared(r) if baseline else [x or 0.0 for x in r]) for r in (first, second))
            for i, episode in enumerate(group.episodes):
                parts = {nth(2): b[i]} if early else {nth(1): a[i], nth(2): b[i]}
                kl = kl_row(episode, beta1 + beta2 * early, beta1)
                signal = on_parts(episode, parts)
                signals.append(replace(signal, weights={**signal.weights, "kl": kl}))
        return signals

    return credit


def weighted_kl(mean: MeanOver = "sum") -> Objective:
    """k3 estimate of KL(pi || pi_ref), each token times its weight in the row "kl"."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        kl = k3(out.logp, batch.extras["reference"])
        return kl, {"kl_reference": kl}

    return objective(Term("kl", loss, MEANS[mean], weight="kl"), reads={"reference"})


def reinforce_near_start(mean: MeanOver = "sum") -> Objective:
    """-A log pi, and the KL to the start under the weights that credit gave it (SCoRe, arXiv 2409.12917)."""
    return plain(mean) + weighted_kl(mean)


RECIPE = Recipe(
    name="score",
    n=41,
    paper=Paper("Training Language Models to Self-Correct via Reinforcement Learning", "2409.12917", 2024),
    idea="The model answers and, without hearing whether it was right, is asked to look again. "
    "At first only the second answer is rewarded while the first is held where it began, so that the two come apart. "
    "Then both are rewarded, with a large bonus for mending and a large loss for spoiling.",
    equation="I: max E[r_2] - beta_2 KL_1 - beta_1 sum KL;  II: max E[r_1 + r_2 + alpha (r_2 - r_1)] - beta_1 sum_i KL(pi(.|x_i) || pi_ref)",
    departures=(
        "GUESS: the baseline is the group's mean for each attempt (--set credit.baseline=false takes none)",
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
    examples=(
        ByHand(
            "mended, spoilt, right twice, at alpha = 10",
            lambda: [progress_bonus(*r, 10.0) for r in ((0, 1), (1, 0), (1, 1))],
            [11, -10, 1],
        ),
        Reduction(
            "no second attempt and no KL: REINFORCE",
            "reinforce",
            {"rollout.second": 0.0, "credit.first_stage": 0.0, "credit.beta1": 0.0},
        ),
    ),
)
