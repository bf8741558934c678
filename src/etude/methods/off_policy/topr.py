"""TOPR: off-policy REINFORCE that needs no trust region.

Le Roux et al. (arXiv 2503.14286). Filter: groups of the last steps are replayed. Credit: +1 - c for a right
answer, -1 - c for a wrong one. Objective: REINFORCE; wrong answers are weighed by the ratio of the whole
answer, at most 1.
"""

from __future__ import annotations

from math import log
from types import SimpleNamespace
from typing import Annotated

import torch

from etude.batch import Batch
from etude.credit.group import Credit
from etude.credit.outcome import outcome
from etude.curriculum.replay import Replay
from etude.fixtures.examples import example_group
from etude.models.outputs import Outputs
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    log_ratio,
    objective,
    per_answer,
    sum_per_episode,
)
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Array


def shifted(
    reward_shift: Annotated[float, Setting("c, subtracted from rewards of +1 and -1", low=-1, high=1)] = 0.0,
) -> Credit:
    """1 - c for a right answer, -1 - c for a wrong one."""
    return outcome(1 - reward_shift, -1 - reward_shift)


def tapered(
    both: Annotated[bool, Setting("taper right answers too (truncated importance sampling)")] = False,
    per_token: Annotated[bool, Setting("one ratio per token instead of one per answer")] = False,
) -> Objective:
    """-sg[w] A log pi_theta(y): w = 1 for A >= 0, min(1, pi_theta(y) / mu(y)) for A < 0; mu wrote y."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).detach()
        weight = (ratio if per_token else per_answer(ratio, batch.episode)).clamp(max=0).exp()
        if not both:
            weight = torch.where(batch.advantage < 0, weight, 1.0)
        return -weight * batch.advantage * out.logp, {"taper": weight}

    return objective(Term("policy", loss, sum_per_episode, proportional=True))


def replayed(first: int, then: int) -> list[Array]:
    """What the recipe's filter trains on at step `then`, when 1,0 came at step `first`, 1,1 now, and the older is drawn."""
    filter = RECIPE.stages["filter"].build("filter")
    drawn = SimpleNamespace(choice=lambda held, n, replace: range(n))
    for step, rewards in ((first, [1.0, 0.0]), (then, [1.0, 1.0])):
        context = SimpleNamespace(step=step, drawn=step, rng=lambda purpose, *parts: drawn)
        groups = filter([example_group(rewards)], context)
    return [group.rewards for group in groups]


RECIPE = Recipe(
    name="topr",
    paper=Paper(
        "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs",
        "2503.14286",
        2025,
    ),
    idea="Right answers are imitated at full weight, however old they are. "
    "Wrong ones are pushed down only as far as the policy would still say them, so their gradient fades instead of exploding. "
    "This allows many passes over old data without a KL term.",
    equation="L = - mean_i sg[w_i] R_i log pi(y_i);  w_i = 1 for R_i >= 0, min(1, pi(y_i)/mu(y_i)) for R_i < 0",
    departures=(
        "the groups of the last 8 steps are replayed evenly (filter.steps); the paper's schedule of sampling is not known",
    ),
    stages={"filter": stage(Replay), "credit": stage(shifted), "objective": stage(tapered)},
    claim="Over many passes on one fixed batch TOPR keeps improving while plain REINFORCE degenerates.",
    manipulation=(Manipulated("the data are old: 0.01 nats from the policy", "kl_sampler", 0.01),),
    examples=(
        ByHand("kept for 8 steps", lambda: [replayed(0, 7), replayed(0, 8)], [[[1, 0]], [[1, 1]]]),
        Credited("c = 0: plus and minus one", [[1.0, 0.0]], [[1.0, -1.0]]),
        Credited(
            "c = 0.5: weights 0.5 and 1.5", [[1.0, 0.0]], [[0.5, -1.5]], settings={"credit.reward_shift": 0.5}
        ),
        OffPolicy(
            "wrong: two tokens of ratio 2 x 0.25 weigh 0.5, ratio 3 weighs 1; right: always 1; log pi = -1 + log rho",
            ratio=(2.0, 0.25, 3.0, 0.25, 3.0),
            advantage=(-1.0, -1.0, -1.0, 1.0, 1.0),
            lengths=(2, 1, 1, 1),
            loss=(0.5 * (log(0.5) - 2) + (log(3) - 1) - (log(0.25) - 1) - (log(3) - 1)) / 4,
            gradient=(0.5 / 4, 0.5 / 4, 1 / 4, -1 / 4, -1 / 4),
        ),
        OffPolicy(
            "a ratio per token, both signs tapered",
            ratio=(2.0, 0.25, 0.25, 2.0),
            advantage=(-1.0, -1.0, 1.0, 1.0),
            lengths=(2, 2),
            loss=((log(2) - 1) + 0.25 * (log(0.25) - 1) - 0.25 * (log(0.25) - 1) - (log(2) - 1)) / 2,
            gradient=(1 / 2, 0.25 / 2, -0.25 / 2, -1 / 2),
            settings={"objective.per_token": True, "objective.both": True},
        ),
        Reduction(
            "c = -1 drops the wrong answers and doubles the right ones: RFT",
            "rft",
            {"credit.reward_shift": -1.0},
            {"credit.distinct": False, "objective.mean": "sum"},
            scale=2.0,
        ),
    ),
)
