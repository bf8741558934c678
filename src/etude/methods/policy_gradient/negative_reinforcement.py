"""W-REINFORCE, PSR and NSR: what right answers teach and what wrong ones teach, told apart.

Zhu et al. (arXiv 2506.01347). Credit: a fixed positive advantage for right answers, a fixed negative one for
wrong answers, no baseline; a weight of 0 leaves the answers out. Objective: PPO's clipped surrogate, a mean
over tokens. PSR keeps right answers only, NSR wrong ones only, W-REINFORCE both, the right ones at a tenth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from etude.credit.group import Credit
from etude.credit.outcome import outcome
from etude.objective.policy import clipped
from etude.recipe import Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage


def signed(
    right: Annotated[float, Setting("weight of right answers; 0 leaves them out", low=0)] = 1.0,
    wrong: Annotated[float, Setting("weight of wrong answers; 0 leaves them out", low=0)] = 1.0,
) -> Credit:
    """A = +right for a right answer, -wrong for a wrong one."""
    return outcome(right, -wrong)


PRAISE = OffPolicy(
    "right answers: above the clip, within it, below it; every token counts alike",
    ratio=(1.5, 1.1, 0.5),
    advantage=(1.0, 1.0, 1.0),
    lengths=(1, 2),
    loss=(-1.2 - 1.1 - 0.5) / 3,
    gradient=(0, -1.1 / 3, -0.5 / 3),
)
BLAME = OffPolicy(
    "wrong answers: above the clip, within it, below it; every token counts alike",
    ratio=(1.5, 0.9, 0.5),
    advantage=(-1.0, -1.0, -1.0),
    lengths=(1, 2),
    loss=(1.5 + 0.9 + 0.8) / 3,
    gradient=(1.5 / 3, 0.9 / 3, 0),
)


W_REINFORCE = Recipe(
    name="w_reinforce",
    paper=Paper(
        "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning", "2506.01347", 2025
    ),
    published_lr=1e-6,
    idea="A right answer pushes its own tokens up and everything else down; a wrong one pushes its tokens down and hands the mass to what the model believed in already. "
    "The two are told apart, and right answers are given a tenth of the weight. No baseline, no normalisation.",
    equation="A_i = lambda for right, -1 for wrong;  L = token mean of PPO's clip",
    departures=("no entropy bonus (0.001 is the default of the paper's framework)",),
    stages={"credit": stage(signed, right=0.1), "objective": stage(clipped, mean="token")},
    claim="Pass@1 rises as with REINFORCE while pass@k at large k does not fall.",
    manipulation=(
        Manipulated("a tenth of the attempts are right", "correct", 0.1),
        Manipulated("a tenth of the attempts are wrong", "correct", at_most=0.9),
    ),
    examples=(
        Credited("no baseline: all right, all wrong", [[1.0, 0], [1.0, 1.0]], [[0.1, -1.0], [0.1, 0.1]]),
        PRAISE,
        BLAME,
        Reduction(
            "lambda = 1, summed and on-policy: TOPR, that is REINFORCE with rewards +1 and -1",
            "topr",
            {"credit.right": 1.0, "objective.mean": "sum"},
        ),
    ),
)


PSR = replace(
    W_REINFORCE,
    name="psr",
    published_lr=1e-6,
    idea="Trains on right answers only, and makes them likelier. That sharpens the distribution around what already worked. "
    "It is the other half of REINFORCE.",
    equation="L = - token mean over right answers of min(rho, 1+e)",
    stages={"credit": stage(signed, wrong=0.0), "objective": stage(clipped, mean="token")},
    claim="Pass@1 rises and pass@k at large k falls.",
    manipulation=(Manipulated("a tenth of the attempts are right", "correct", 0.1),),
    examples=(
        Credited("of right, wrong, right", [[1.0, 0, 1.0]], [[1.0, 1.0]]),
        PRAISE,
        Reduction(
            "on-policy it is rejection-sampling fine-tuning", "rft", to_settings={"credit.distinct": False}
        ),
    ),
)


NSR = replace(
    W_REINFORCE,
    name="nsr",
    published_lr=1e-6,
    idea="Trains on wrong answers only, and makes them less likely. The mass that they lose goes to the other tokens in proportion to their probability. "
    "So the model's own beliefs are refined, not replaced.",
    equation="L = token mean over wrong answers of max(rho, 1-e), whose gradient on-policy is grad log pi(y)",
    stages={"credit": stage(signed, right=0.0), "objective": stage(clipped, mean="token")},
    claim="Pass@k at large k stays as high as at the start, because entropy does.",
    manipulation=(Manipulated("a tenth of the attempts are wrong", "correct", at_most=0.9),),
    examples=(
        Credited("of right, wrong, right", [[1.0, 0, 1.0]], [[-1.0]]),
        BLAME,
        Reduction("W-REINFORCE with lambda = 0", "w_reinforce", to_settings={"credit.right": 0.0}),
    ),
)

RECIPES = (W_REINFORCE, PSR, NSR)
