"""NFT: learn from wrong answers by supervised learning.

Chen et al. (arXiv 2505.18116). Filter: groups of mixed outcomes. Credit: a weight w from the task's pass rate
r, written as the advantage that the loss amounts to on-policy. Objective: maximum likelihood of right answers
under the policy, and of wrong answers under the negative policy that pi_old = r pi_+ + (1 - r) pi_- implies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from typing import Annotated

import numpy as np
import torch

from etude.batch import Batch
from etude.channels import writes
from etude.credit.group import Credit, constant
from etude.curriculum.filter import mixed_only
from etude.fixtures.examples import example_group
from etude.models.outputs import Outputs
from etude.objective.policy import Length
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    log_ratio,
    objective,
    per_answer,
    per_constant,
    per_episode,
)
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Group, Signal

BY_PASS_RATE: dict[str, Callable[[float], float]] = {
    "1": lambda r: 1.0,
    "1-r": lambda r: 1 - r,
    "odds": lambda r: ((1 - r) / r) ** 0.5,
}


@writes("policy", extras=("rate",))
def rated(
    task_weight: Annotated[
        str, Setting("w of a task of pass rate r; odds: root of (1-r)/r", choices=tuple(BY_PASS_RATE))
    ] = "1-r",
    rate_margin: Annotated[float, Setting("least distance of r from 0 and 1", low=1e-6, high=0.5)] = 0.02,
) -> Credit:
    """A = w for a right answer, -w r/(1-r) for a wrong one: what the loss amounts to at pi_theta = pi_old. Extras:
    `rate`, the pass rate r of the group, kept away from 0 and 1."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        signals = []
        for group in groups:
            r = float(np.clip(np.mean([e.correct for e in group.episodes]), rate_margin, 1 - rate_margin))
            w = BY_PASS_RATE[task_weight](r)
            for e in group.episodes:
                signal = constant(e, w if e.correct else -w * r / (1 - r))
                signals.append(replace(signal, extras={"rate": np.full_like(signal.advantage, r)}))
        return signals

    return credit


def negative_aware(
    ratio_floor: Annotated[float, Setting("least value of N inside the logarithm", low=1e-6)] = 1.0,
    negative: Annotated[float, Setting("weight of wrong answers", low=0)] = 1.0,
    whole: Annotated[bool, Setting("one ratio per answer instead of one per token")] = False,
    length_divisor: Length = 64.0,
) -> Objective:
    """-w log R for right answers, -w log max(N, ratio_floor) for wrong ones, N = (1 - r R) / (1 - r): the ratio of the
    negative policy implied by pi_old = r pi_+ + (1-r) pi_-. The maximum passes dN on unchanged."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        log_r, a, r = log_ratio(out, batch), batch.advantage, batch.extras["rate"]
        if whole:
            log_r = per_answer(log_r, batch.episode)
        log_r = log_r.clamp(max=10)
        n = (1 - r * log_r.exp()) / (1 - r)
        held = n + (n.clamp(min=ratio_floor) - n).detach()
        wrong = negative * a * (1 - r) / r * held.log()  # a (1-r)/r = -w
        return torch.where(a > 0, -a * log_r, wrong), {"negative_ratio": n}

    mean = per_episode if whole else per_constant(length_divisor)
    return objective(Term("policy", loss, mean, proportional=True), extras={"rate"})


def kept() -> list[Array]:
    """Rewards of the groups that the recipe's filter keeps of 1,0 / 1,1 / 0,0."""
    groups = [example_group(rewards) for rewards in ([1, 0], [1, 1], [0, 0])]
    return [group.rewards for group in RECIPE.stages["filter"].build("filter")(groups, None)]


RECIPE = Recipe(
    name="nft",
    paper=Paper(
        "Bridging Supervised Learning and Reinforcement Learning in Math Reasoning", "2505.18116", 2025
    ),
    published_lr=1e-6,
    idea="The sampling policy is a mixture of a policy that is always right and one that is always wrong, in the proportion of the pass rate. "
    "Right answers train the first directly; wrong answers train it through the second. "
    "Both are maximum likelihood: there is no reward in the loss.",
    equation="right: -w log R_t;  wrong: -w log max(N_t, e), N_t = (1 - r R_t)/(1 - r);  R_t = pi(y_t)/pi_old(y_t)",
    departures=(
        "the constant divisor is 64 tokens per episode instead of 1000 per batch share; it only scales the rate",
    ),
    stages={"filter": stage(mixed_only), "credit": stage(rated), "objective": stage(negative_aware)},
    claim="At equal samples NFT ends above rejection-sampling fine-tuning.",
    manipulation=(Manipulated("a fifth of the attempts are wrong", "correct", at_most=0.8),),
    examples=(
        Credited("1 of 4 right", [[1.0, 0, 0, 0]], [[0.75, -0.25, -0.25, -0.25]]),
        Credited(
            "unanimous groups keep a little of either: r = 0.98, r = 0.02",
            [[1.0, 1.0], [0.0, 0.0]],
            [[0.02, 0.02], [-0.02, -0.02]],
        ),
        Credited(
            "w = odds standardises",
            [[1.0, 0, 0, 0]],
            [[3**0.5, *[-(3**-0.5)] * 3]],
            settings={"credit.task_weight": "odds"},
        ),
        Credited("w = 1", [[1.0, 0, 0, 0]], [[1.0, *[-1 / 3] * 3]], settings={"credit.task_weight": "1"}),
        ByHand("of groups 1,0 / 1,1 / 0,0 the first is kept", kept, [[1, 0]]),
        OffPolicy(
            "r = 1/4, w = 3/4; right: -w log R. Wrong: R = 0.5 gives N = 7/6, loss -w log N, gradient w r R / (1-r) / N; "
            "R = 1.5 gives N = 5/6, held at 1: loss 0, gradient w r R / (1-r)",
            ratio=(1.5, 0.5, 0.5, 1.5),
            advantage=(0.75, 0.75, -0.25, -0.25),
            extras={"rate": (0.25, 0.25, 0.25, 0.25)},
            loss=0.75 * (-log(1.5) - log(0.5) - log(7 / 6)) / 64,
            gradient=(-0.75 / 64, -0.75 / 64, 0.75 * (0.5 / 3) / (7 / 6) / 64, 0.75 * (1.5 / 3) / 64),
        ),
        OffPolicy(
            "floor 0.9, wrong answers at half, per token: R = 1.2 gives N = 14/15, R = 1.5 gives N = 5/6, held at 0.9",
            ratio=(1.2, 1.5, 1.2),
            advantage=(-0.25, -0.25, 0.75),
            extras={"rate": (0.25, 0.25, 0.25)},
            loss=0.75 * (-0.5 * log(14 / 15) - 0.5 * log(0.9) - log(1.2)),
            gradient=(0.5 * 0.75 * 0.4 / (14 / 15), 0.5 * 0.75 * 0.5 / 0.9, -0.75),
            settings={
                "objective.ratio_floor": 0.9,
                "objective.negative": 0.5,
                "objective.length_divisor": 1.0,
            },
        ),
        Reduction("on-policy with w = 1-r it is Dr. GRPO", "dr_grpo"),
    ),
)
