"""my_method: one sentence that says what it changes.

Written by `etude new method`; it works as it is. `etude try ./my_method.py` checks it, and
`etude train ./my_method.py --tasks ...` trains with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from etude.batch import Batch
from etude.credit.group import centred, constant
from etude.models.outputs import Outputs
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective
from etude.recipe import Credited, OffPolicy, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

# A stage is made by a function whose parameters are its settings: `--set credit.blame=0.2` changes one.


def lenient(
    blame: Annotated[float, Setting("weight of negative advantages", low=0, high=1)] = 0.5,
) -> Credit:
    """A_i = r_i - mean r of the group, times `blame` where it is negative."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            for episode, a in zip(group.episodes, centred(group.rewards), strict=True):
                signals.append(constant(episode, float(a if a > 0 else blame * a)))
        return signals

    return credit


def truncated(
    bound: Annotated[float, Setting("largest importance ratio", low=1)] = 2.0,
) -> Objective:
    """L = - mean_t sg[min(rho_t, bound)] A_t log pi(y_t), rho = pi / pi_old. `out.logp` carries the gradient; a loss
    returns one number a token and never averages: the `Mean` of its Term does."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        rho = log_ratio(out, batch).exp().detach()
        return -rho.clamp(max=bound) * batch.advantage * out.logp, {"ratio": rho}

    return objective(Term("policy", loss, MEANS["token"], proportional=True))


RECIPE = Recipe(
    name="my_method",
    idea="Two or three sentences for a newcomer, without symbols. Answers are compared within their group. "
    "What was worse than the rest is blamed at half weight, and old samples count by a bounded ratio.",
    equation="A_i = w (r_i - mean r), w = blame if negative;  L = - mean_t sg[min(rho, bound)] A log pi",
    departures=("where this differs from its paper, and every guess",),
    stages={"credit": stage(lenient), "objective": stage(truncated)},
    examples=(
        Credited("1 of 2 right: 0.5, and half of -0.5", [[1.0, 0.0]], [[0.5, -0.25]]),
        OffPolicy(
            "a ratio above the bound and one below it; log pi = log ratio - 1",
            ratio=(3.0, 0.5),
            advantage=(1.0, -1.0),
            loss=-(2.0 * (math.log(3.0) - 1) - 0.5 * (math.log(0.5) - 1)) / 2,
            gradient=(-2.0 / 2, 0.5 / 2),
        ),
        Reduction(
            "with full blame, on-policy, it is GRPO without std, averaged over tokens",
            "grpo",
            {"credit.blame": 1.0},
            {"credit.scale": "off", "objective.mean": "token"},
        ),
    ),
)
