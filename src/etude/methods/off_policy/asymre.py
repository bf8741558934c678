"""AsymRE: a baseline a little below the mean.

Arnal et al. (arXiv 2506.20520). Filter: groups of the last twenty steps are replayed (as in REC). Credit: the
reward minus the group's mean minus dV, dV < 0. Objective: REINFORCE as a token mean, without ratio or mask.
"""

from __future__ import annotations

from math import log
from typing import Annotated

from etude.credit.group import Credit, centred, each
from etude.methods.off_policy.rec import REC
from etude.objective.masked_ratio import relative
from etude.recipe import Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage


def shifted_mean(
    shift: Annotated[float, Setting("baseline minus the mean reward of the group", low=-1, high=1)] = 0.0,
) -> Credit:
    """A_i = r_i - (mean r + shift)."""
    return each(lambda rewards: centred(rewards) - shift)


RECIPE = Recipe(
    name="asymre",
    base=REC,
    paper=Paper(
        "Asymmetric REINFORCE for off-Policy Reinforcement Learning: Balancing positive and negative rewards",
        "2506.20520",
        2025,
    ),
    idea="A baseline a little below the group's mean praises every answer a little more. "
    "Off-policy that favours what is good over what is bad, as imitation of all samples would. No ratio is needed.",
    equation="A_i = r_i - (mean r + dV), dV = -0.1;  L = - token mean of A_i log pi(y_t)",
    stages={"credit": stage(shifted_mean, shift=-0.1), "objective": stage(relative, mask="off")},
    claim="On stale data a baseline below the mean is stable where one at or above the mean collapses.",
    manipulation=(Manipulated("the data are old: 0.01 nats from the policy", "kl_sampler", 0.01),),
    examples=(
        Credited("right, wrong; all right", [[1.0, 0.0], [1.0, 1.0]], [[0.6, -0.4], [0.1, 0.1]]),
        OffPolicy(
            "no ratio and no mask, however far the policy has moved; log pi = -1 + log rho",
            ratio=(4.0, 0.1, 4.0, 0.1),
            advantage=(0.6, 0.6, -0.4, -0.4),
            loss=(-0.6 * (log(4) - 1 + log(0.1) - 1) + 0.4 * (log(4) - 1 + log(0.1) - 1)) / 4,
            gradient=(-0.6 / 4, -0.6 / 4, 0.4 / 4, 0.4 / 4),
        ),
        Reduction(
            "dV = 0, summed and on-policy: REINFORCE",
            "reinforce",
            {"credit.shift": 0.0, "objective.mean": "sum"},
        ),
    ),
)
