"""NFT: learn from wrong answers by supervised learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch

from etude.batch import Batch
from etude.credit.group import Credit, constant
from etude.curriculum.filter import mixed_only
from etude.models.outputs import Outputs
from etude.objective.off_policy import per_answer
from etude.objective.policy import Length
from etude.objective.terms import Objective, Term, TokenLoss, log_ratio, objective, per_constant, per_episode
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.testing.examples import example_advantages
from etude.types import Group, Signal

BY_PASS_RATE: dict[str, Callable[[float], float]] = {
    "1": lambda r: 1.0,
    "1-r": lambda r: 1 - r,
    "odds": lambda r: ((1 - r) / r) ** 0.5,
}


def rated(
    weight: Annotated[
        str, Setting("w of a task of pass rate r; odds: root of (1-r)/r", choices=tuple(BY_PASS_RATE))
    ] = "1-r",
    floor: Annotated[float, Setting("least distance of r from 0 and 1", low=1e-6, high=0.5)] = 0.02,
) -> Credit:
    """A = w for a right answer, -w r/(1-r) for a wrong one: what the loss amounts to at pi_theta = pi_old. Extras:
    `rate`, the pass rate r of the group (NFT, arXiv 2505.18116)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            r = float(np.clip(np.mean([e.correct for e in group.episodes]), floor, 1 - floor))
            w = BY_PASS_RATE[weight](r)
            for e in group.episodes:
                signal = constant(e, w if e.correct else -w * r / (1 - r))
                signals.append(replace(signal, extras={"rate": np.full_like(signal.advantage, r)}))
        return signals

    return credit


def negative_aware(
    floor: Annotated[float, Setting("least value of N inside the logarithm", low=1e-6)] = 1.0,
    negative: Annotated[float, Setting("weight of wrong answers", low=0)] = 1.0,
    whole: Annotated[bool, Setting("one ratio per answer instead of one per token")] = False,
    length: Length = 64.0,
) -> Objective:
    """-w log R for right answers, -w log max(N, floor) for wrong ones, N = (1 - r R) / (1 - r): the ratio of the
    negative policy implied by pi_old = r pi_+ + (1-r) pi_-. The maximum passes dN on unchanged
    (NFT, arXiv 2505.18116)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        log_r, a, r = log_ratio(out, batch), batch.advantage, batch.extras["rate"]
        if whole:
            log_r = per_answer(log_r, batch.episode)
        log_r = log_r.clamp(max=10)
        n = (1 - r * log_r.exp()) / (1 - r)
        held = n + (n.clamp(min=floor) - n).detach()
        wrong = negative * a * (1 - r) / r * held.log()  # a (1-r)/r = -w
        return torch.where(a > 0, -a * log_r, wrong), {"negative_ratio": n}

    mean = per_episode if whole else per_constant(length)
    return objective(Term("policy", loss, mean, proportional=True))


RECIPE = Recipe(
    name="nft",
    n=61,
    paper=Paper(
        "Bridging Supervised Learning and Reinforcement Learning in Math Reasoning", "2505.18116", 2025
    ),
    idea="The sampling policy is a mixture of a policy that is always right and one that is always wrong, in the proportion of the pass rate. "
    "Right answers train the first directly; wrong answers train it through the second. "
    "Both are maximum likelihood: there is no reward in the loss.",
    equation="right: -w log R_t;  wrong: -w log max(N_t, e), N_t = (1 - r R_t)/(1 - r);  R_t = pi(y_t)/pi_old(y_t)",
    departures=(
        "the constant divisor is 64 tokens per episode instead of 1000 per batch share; it only scales the rate",
    ),
    stages={"filter": stage(mixed_only), "credit": stage(rated), "objective": stage(negative_aware)},
    claim="At equal samples NFT ends above rejection-sampling fine-tuning.",
    examples=(
        ByHand(
            "1 of 4 right", lambda: example_advantages(rated(), [1, 0, 0, 0]), [0.75, -0.25, -0.25, -0.25]
        ),
        ByHand(
            "w = odds standardises",
            lambda: example_advantages(rated("odds"), [1, 0, 0, 0]),
            [3**0.5, *[-(3**-0.5)] * 3],
        ),
        Reduction("on-policy with w = 1-r it is Dr. GRPO", "dr_grpo"),
    ),
)
