"""GRPO: several answers to one task are compared with each other; PPO's clip keeps the step small.

DeepSeekMath (Shao et al., arXiv 2402.03300). It stands on two pieces of the shared vocabulary:

- credit, `advantage(baseline="group mean", scale="group std")`: A_i = (r_i - mean r) / (std r + 1e-4), mean
  and std over the G answers to one task, the same number on every token of answer i (`etude.credit.group`).
- objective, `clipped`: -min(rho_t A_i, clip(rho_t, 1 - e, 1 + e) A_i), rho_t = pi_theta(y_t) / pi_old(y_t),
  as a mean over the tokens of an answer, then over answers (mean="episode"); plus kl_weight x KL(pi_theta ||
  pi_start), as the k3 estimate r - 1 - log r with r = pi_start / pi_theta (`etude.objective.policy`).
"""

from math import log

from etude.credit.group import advantage
from etude.objective.policy import clipped
from etude.recipe import Credited, OffPolicy, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="grpo",
    paper=Paper(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "2402.03300",
        2024,
    ),
    published_lr=1e-6,
    idea="Answers to one task are compared with each other: reward minus the group's mean, over its standard deviation. "
    "The ratio to the sampling policy is clipped as in PPO. No critic is needed.",
    equation="A_i = (r_i - mean r) / (std r + 1e-4);  L = - mean_i mean_t min(rho A, clip(rho, 1-e, 1+e) A) + beta KL",
    departures=("beta (kl_weight) = 0 by default: a run keeps no reference model unless asked to",),
    stages={"credit": stage(advantage, scale="group std"), "objective": stage(clipped)},
    unchecked="its advantage acts on every mixed group, and the gate 'mixed' counts those",
    examples=(
        Credited("1 of 2 right: std 1/2", [[1.0, 0.0]], [[0.5 / 0.5001, -0.5 / 0.5001]]),
        Credited(
            "each task by itself; 1 of 4 right: std sqrt(3)/4; all right: nothing",
            [[1.0, 0, 0, 0], [1.0, 1.0]],
            [[0.75 / (3**0.5 / 4 + 1e-4), *[-0.25 / (3**0.5 / 4 + 1e-4)] * 3], [0, 0]],
        ),
        OffPolicy(
            "praise above the clip, within it, below it; blame above, within, below",
            ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 6,
            gradient=(0, -1.1 / 6, -0.5 / 6, 1.5 / 6, 0.9 / 6, 0),
        ),
        OffPolicy(
            "unequal bounds: 1.25 lies within, 0.75 beyond",
            ratio=(1.25, 1.3, 0.75),
            advantage=(1.0, 1.0, -1.0),
            loss=(-1.25 - 1.28 + 0.8) / 3,
            gradient=(-1.25 / 3, 0, 0),
            settings={"objective.clip_high": 0.28},
        ),
        OffPolicy(
            "an answer of one token counts as much as one of three",
            ratio=(1.0, 1.0, 1.0, 1.0),
            advantage=(1.0, -0.5, -0.5, -0.5),
            lengths=(1, 3),
            loss=(-1 + 0.5) / 2,
            gradient=(-1 / 2, *[0.5 / 6] * 3),
        ),
        OffPolicy(
            "the KL pulls back: up where the start is twice as likely, down where half; k3 = r - 1 - log r, dk3 = 1 - r",
            ratio=(1.0, 1.0),
            advantage=(0.0, 0.0),
            extras={"reference": (-1 + log(2), -1 - log(2))},
            loss=0.5 * ((2 - 1 - log(2)) + (0.5 - 1 + log(2))) / 2,
            gradient=(0.5 * (1 - 2) / 2, 0.5 * (1 - 0.5) / 2),
            settings={"objective.kl_weight": 0.5},
        ),
        OffPolicy(
            "dual clip: blame is bounded by 3 |A|, praise is not touched",
            ratio=(5.0, 2.0, 5.0),
            advantage=(-2.0, -2.0, 2.0),
            loss=(3 * 2 + 2 * 2 - 1.2 * 2) / 3,
            gradient=(0, 2 * 2 / 3, 0),
            settings={"objective.dual_clip": 3.0},
        ),
        Reduction(
            "without std, summed over tokens and on-policy it is REINFORCE",
            "reinforce",
            {"credit.scale": "off", "objective.mean": "sum"},
        ),
    ),
)
