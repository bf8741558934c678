"""REC: group-relative REINFORCE read as an off-policy method, held by a mask."""

import torch

from etude.credit.normalise import balanced_mean
from etude.curriculum.replay import Replay
from etude.objective.masked_ratio import one_side, relative, ring
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

UP, RHO = torch.ones(4), torch.tensor([0.5, 1.0, 1.5, 4.0])
REC = Recipe(
    name="rec",
    n=112,
    paper=Paper(
        "Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm: Demystifying Some Myths About GRPO and Its Friends",
        "2509.24203",
        2025,
    ),
    idea="Group-relative REINFORCE is one step on the consistency of rewards and log-ratios within pairs of answers, whatever policy wrote them. "
    "So stale data needs no importance weight; what keeps it stable is the clip, used as a mask. "
    "Groups of the last twenty steps are replayed to show it.",
    equation="L = - token mean of A_i M_t log pi(y_t), A_i = r_i - mean r, M_t = [A>=0, rho<=1+e] or [A<=0, rho>=1-e]",
    departures=(
        "staleness comes from replaying the last 20 steps evenly, where the paper synchronises the sampler every 20 steps",
    ),
    stages={
        "filter": stage(Replay, steps=20),
        "credit": stage(balanced_mean),
        "objective": stage(relative),
    },
    claim="On stale data clipping prevents collapse, and leaving the importance weight out changes little.",
    examples=(
        ByHand("praise acts up to 1.2", lambda: one_side(UP, RHO, (0.8, 1.2), (0.4, 3.0)), [1, 1, 0, 0]),
        ByHand("blame acts from 0.8", lambda: one_side(-UP, RHO, (0.8, 1.2), (0.4, 3.0)), [0, 1, 1, 1]),
        ByHand("ring: and blame far out", lambda: ring(-UP, RHO, (0.8, 1.2), (0.4, 3.0)), [0, 1, 0, 1]),
        Reduction(
            "with importance weights and on-policy: GRPO without std",
            "grpo",
            {"objective.importance": True},
            {"credit.std": False, "objective.mean": "token"},
        ),
        Reduction(
            "without a mask, summed and on-policy: REINFORCE",
            "reinforce",
            {"objective.mask": "off", "objective.mean": "sum"},
        ),
    ),
)


OPMD = Recipe(
    name="opmd",
    base=REC,
    n=112,
    paper=REC.paper,
    idea="Instead of a clip, a quadratic pull on the log-ratio keeps the policy near the one that wrote the data. "
    "Its strength is the temperature of the KL-regularised problem that the loss solves.",
    equation="L = - token mean of [A_i log pi(y_t) - tau (log pi(y_t) - log pi_old(y_t))^2]",
    departures=("GUESS: tau = 0.1; at 1 the pull holds a small model where it was",),
    stages={"objective": stage(relative, mask="off", tau=0.1)},
    claim="On stale data the pull prevents the collapse of unclipped REINFORCE.",
    examples=(
        Reduction(
            "tau = 0, summed and on-policy: REINFORCE",
            "reinforce",
            {"objective.tau": 0.0, "objective.mean": "sum"},
        ),
    ),
)

RECIPES = (REC, OPMD)
