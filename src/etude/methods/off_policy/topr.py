"""TOPR: off-policy REINFORCE that needs no trust region."""

from __future__ import annotations

from typing import Annotated

import torch

from etude.batch import Batch
from etude.credit.group import Credit
from etude.credit.outcome import outcome
from etude.curriculum.replay import Replay
from etude.models.outputs import Outputs
from etude.objective.off_policy import per_answer
from etude.objective.terms import Objective, Term, TokenLoss, log_ratio, objective, sum_per_episode
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.testing.examples import example_advantages


def tapered(
    both: Annotated[bool, Setting("taper right answers too (truncated importance sampling)")] = False,
    per_token: Annotated[bool, Setting("one ratio per token instead of one per answer")] = False,
) -> Objective:
    """-sg[w] A log pi_theta(y): w = 1 for A >= 0, min(1, pi_theta(y) / mu(y)) for A < 0
    (TOPR, arXiv 2503.14286)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).detach()
        weight = (ratio if per_token else per_answer(ratio, batch.episode)).clamp(max=0).exp()
        if not both:
            weight = torch.where(batch.advantage < 0, weight, 1.0)
        return -weight * batch.advantage * out.logp, {"taper": weight}

    return objective(Term("policy", loss, sum_per_episode, proportional=True))


def shifted(
    baseline: Annotated[float, Setting("c, subtracted from rewards of +1 and -1", low=-1, high=1)] = 0.0,
) -> Credit:
    """1 - c for a right answer, -1 - c for a wrong one."""
    return outcome(1 - baseline, -1 - baseline)


RECIPE = Recipe(
    name="topr",
    n=103,
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
        "the groups of the last 8 steps are replayed evenly (select.steps); the paper's schedule of sampling is not known",
    ),
    stages={"filter": stage(Replay), "credit": stage(shifted), "objective": stage(tapered)},
    claim="Over many passes on one fixed batch TOPR keeps improving while plain REINFORCE degenerates.",
    examples=(
        ByHand("c = 0: plus and minus one", lambda: example_advantages(shifted(), [1, 0]), [1.0, -1.0]),
        ByHand("c = 0.5: weights 0.5 and 1.5", lambda: example_advantages(shifted(0.5), [1, 0]), [0.5, -1.5]),
        Reduction(
            "c = -1 drops the wrong answers and doubles the right ones: RFT",
            "rft",
            {"credit.baseline": -1.0},
            {"credit.distinct": False, "objective.mean": "sum"},
            scale=2.0,
        ),
    ),
)
